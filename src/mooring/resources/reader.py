"""Combine what the machine, the scheduler and the cgroups say. Not for reading cgroups: limits.py."""

from __future__ import annotations

import os
import resource
from collections.abc import Collection, Mapping
from pathlib import Path

from mooring.resources.cgroups import CgroupFiles, Cgroups
from mooring.resources.limits import cpu_list, cpu_quota, cpuset, memory_limit, whole
from mooring.resources.model import Reading, Resources

_ROOT = Path("/")
_ONLINE = "/sys/devices/system/cpu/online"
_MEMORY = "/proc/meminfo"
# Kubernetes puts both into every container (kubernetes.io: Accessing the Kubernetes API from a Pod).
_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def read(
    root: Path = _ROOT, *, environ: Mapping[str, str], affinity: Collection[int] | None = None
) -> Resources:
    """Read what this machine or container really offers. Never raises for what it finds: see `warnings`.

    `root` is the folder that holds proc and sys; `environ` is searched for Kubernetes' variable; `affinity`
    is the CPUs this process may run on, by default what sched_getaffinity says.
    """
    files = CgroupFiles(root)
    cgroups = Cgroups.find(files)
    host_cpus, host_memory = _host_cpus(files), _host_memory(files)
    quota = cpu_quota(files, cgroups.hierarchy("cpu"))
    in_set = cpuset(files, cgroups.hierarchy("cpuset"))
    runnable = _affinity(affinity)
    return Resources(
        cpu_quota=quota,
        cpuset=in_set,
        affinity=runnable,
        host_cpus=host_cpus,
        # Of equal values the first is named: the machine if nothing limits it, a cpuset before the affinity.
        cpus=_least({"host_cpus": host_cpus, "cpu_quota": quota, "cpuset": in_set, "affinity": runnable}),
        memory_limit=memory_limit(files, cgroups.hierarchy("memory"), host_memory.value),
        host_memory=host_memory,
        kubernetes=_kubernetes(files, cgroups, environ),
        warnings=tuple(files.warnings),
        descriptors=_descriptors(),
    )


def _descriptors() -> Reading[int]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Reading(None if soft == resource.RLIM_INFINITY else soft, "RLIMIT_NOFILE")


def _least(readings: Mapping[str, Reading[int] | Reading[float]]) -> Reading[float]:
    known = [(float(reading.value), name) for name, reading in readings.items() if reading.value is not None]
    if not known:
        return Reading(None, "unknown")
    value, name = min(known, key=lambda found: found[0])
    return Reading(value, f"{name}: {readings[name].source}")


def _affinity(affinity: Collection[int] | None) -> Reading[int]:
    if affinity is None:
        if not hasattr(os, "sched_getaffinity"):  # macOS, where `mooring dev` may still run
            return Reading(None, "this system has no sched_getaffinity")
        affinity = os.sched_getaffinity(0)
    return Reading(len(affinity) or None, "sched_getaffinity")


def _host_cpus(files: CgroupFiles) -> Reading[int]:
    content = files.text(_ONLINE)
    if content is not None:
        if online := cpu_list(content.strip()):
            return Reading(len(online), _ONLINE)
        files.reject(_ONLINE, content, "a list of CPUs such as 0-3,8")
    return Reading(os.cpu_count(), "os.cpu_count()")


def _host_memory(files: CgroupFiles) -> Reading[int]:
    content = files.text(_MEMORY)
    if content is None:
        return Reading(None, f"no {_MEMORY}")
    total = next((line for line in content.splitlines() if line.startswith("MemTotal:")), "")
    kibibytes = whole(total.removeprefix("MemTotal:").removesuffix("kB").strip())
    if not kibibytes:
        files.reject(_MEMORY, total or content, "MemTotal: NUMBER kB")
        return Reading(None, f"no usable MemTotal in {_MEMORY}")
    return Reading(kibibytes * 1024, _MEMORY)


def _kubernetes(files: CgroupFiles, cgroups: Cgroups, environ: Mapping[str, str]) -> Reading[bool]:
    if environ.get(_SERVICE_HOST):
        return Reading(True, _SERVICE_HOST)
    if files.is_folder(_SERVICE_ACCOUNT):
        return Reading(True, _SERVICE_ACCOUNT)
    paths = (*cgroups.paths.values(), *(mount.root for mount in cgroups.mounts))
    if pod := next((path for path in paths if "kubepods" in path), None):
        return Reading(True, f"cgroup {pod}")
    return Reading(False, f"no {_SERVICE_HOST}, no {_SERVICE_ACCOUNT}, no kubepods cgroup")
