"""What mooring says a machine or container offers, on trees laid out as real systems show them (trees.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trees import GIB, MIB, TREES, build, machine

from mooring.resources import Resources, read

TOP = "/sys/fs/cgroup"

# tree: (quota, its source), (CPUs in the cpuset, its source), (memory limit, its source), in Kubernetes?
NO_QUOTA_V1 = (None, f"no limit in {TOP}/cpu,cpuacct/cpu.cfs_quota_us")
NO_QUOTA_V2 = (None, f"no limit in {TOP}/cpu.max")
NO_MEMORY_V1 = (None, f"no limit in {TOP}/memory/memory.limit_in_bytes")
NO_MEMORY_V2 = (None, f"no limit in {TOP}/memory.max")
SET_V1 = (8, f"{TOP}/cpuset/cpuset.effective_cpus")
SET_V2 = (8, f"{TOP}/cpuset.cpus.effective")
QUOTA_V1 = f"{TOP}/cpu,cpuacct/cpu.cfs_quota_us"
MEMORY_V1 = f"{TOP}/memory/memory.limit_in_bytes"
NOT_MOUNTED = "the cgroup v1 controller {} is not mounted"
NONE = "no cgroups: nothing in /proc/self/cgroup and /proc/self/mountinfo"
POD = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0057.slice"

EXPECTED = {
    "this machine": (
        (None, f"no limit in {TOP}/cpu/cpu.cfs_quota_us"),
        (2, f"{TOP}/cpuset/cpuset.effective_cpus"),
        (
            None,
            f"no limit in {TOP}/memory/process_api/2fab21e1c515/memory.limit_in_bytes and its 2 ancestors",
        ),
        False,
    ),
    "docker v1, observed": (
        (1.5, f"{TOP}/cpu/cpu.cfs_quota_us"),
        (1, f"{TOP}/cpuset/cpuset.effective_cpus"),
        (256 * MIB, MEMORY_V1),
        False,
    ),
    "docker v1": ((2.5, QUOTA_V1), SET_V1, (2 * GIB, MEMORY_V1), False),
    "docker v1, private namespace": ((0.5, QUOTA_V1), SET_V1, NO_MEMORY_V1, False),
    "docker v1, host's tree mounted": (
        (1.0, "/host/cgroup/cpu,cpuacct/docker/outer/cpu.cfs_quota_us"),
        (8, "/host/cgroup/cpuset/docker/outer/2cf01c117565/cpuset.effective_cpus"),
        (GIB, "/host/cgroup/memory/docker/outer/memory.limit_in_bytes"),
        False,
    ),
    "v1, path of the host, mount shows the container": (
        (1.2, f"{TOP}/cpu,cpuacct/inner/cpu.cfs_quota_us"),
        (8, f"{TOP}/cpuset/inner/cpuset.effective_cpus"),
        (4 * GIB, MEMORY_V1),
        False,
    ),
    "docker v2": (
        (1.5, f"{TOP}/cpu.max"),
        (4, f"{TOP}/cpuset.cpus.effective"),
        (512 * MIB, f"{TOP}/memory.max"),
        False,
    ),
    "docker v2, host namespace": (
        (0.5, f"{TOP}/docker/d71c9d0cd816/cpu.max"),
        (8, f"{TOP}/docker/d71c9d0cd816/cpuset.cpus.effective"),
        (100 * MIB, f"{TOP}/docker/d71c9d0cd816/memory.max"),
        False,
    ),
    "docker v2, host namespace, own cgroup mounted": (
        (0.75, f"{TOP}/cpu.max"),
        SET_V2,
        (GIB, f"{TOP}/memory.max"),
        False,
    ),
    "docker v2 with a v1 net_cls": ((2.0, f"{TOP}/cpu.max"), SET_V2, NO_MEMORY_V2, False),
    "v2, beside its namespace": (
        (3.0, f"{TOP}/cpu.max"),
        (8, f"{TOP}/web/cpuset.cpus.effective"),
        (GIB, f"{TOP}/web/memory.max"),
        False,
    ),
    "kubernetes v1 guaranteed": (
        (2.0, QUOTA_V1),
        (2, f"{TOP}/cpuset/cpuset.effective_cpus"),
        (GIB, MEMORY_V1),
        True,
    ),
    "kubernetes v1 burstable": ((1.5, QUOTA_V1), SET_V1, (2936016896, f"{TOP}/memory/memory.stat"), True),
    "kubernetes v1 besteffort": (NO_QUOTA_V1, SET_V1, NO_MEMORY_V1, True),
    "kubernetes v2 guaranteed": (
        (2.0, f"{TOP}/cpu.max"),
        (2, f"{TOP}/cpuset.cpus.effective"),
        (2 * GIB, f"{TOP}/memory.max"),
        False,
    ),
    "kubernetes v2 burstable": (NO_QUOTA_V2, SET_V2, (3 * GIB, f"{TOP}/memory.high"), False),
    "kubernetes v2 besteffort": (NO_QUOTA_V2, SET_V2, NO_MEMORY_V2, False),
    "kubernetes v2 beside its namespace": (NO_QUOTA_V2, SET_V2, NO_MEMORY_V2, True),
    "kubernetes v2 host namespace": (
        (0.6, f"{TOP}/{POD}/cpu.max"),
        (8, f"{TOP}/{POD}/cri-containerd-e7364.scope/cpuset.cpus.effective"),
        (600 * MIB, f"{TOP}/{POD}/memory.max"),
        True,
    ),
    "systemd slice v2": (
        (1.5, f"{TOP}/apps.slice/cpu.max"),
        (8, f"{TOP}/apps.slice/api.service/cpuset.cpus.effective"),
        (3 * GIB, f"{TOP}/apps.slice/memory.max"),
        False,
    ),
    "systemd slice v1": (
        (1.5, f"{TOP}/cpu,cpuacct/apps.slice/cpu.cfs_quota_us"),
        SET_V1,
        (3 * GIB, f"{TOP}/memory/apps.slice/memory.limit_in_bytes"),
        False,
    ),
    "slurm step, leaf mounted": (NO_QUOTA_V2, SET_V2, NO_MEMORY_V2, False),
    "lxc v2": (
        (None, f"no limit in {TOP}/system.slice/api.service/cpu.max and its 2 ancestors"),
        (2, f"{TOP}/system.slice/api.service/cpuset.cpus.effective"),
        (2 * GIB, f"{TOP}/memory.max"),
        False,
    ),
    "lxc v1": (
        (1.0, f"{TOP}/cpu/lxc/web/cpu.cfs_quota_us"),
        (1, f"{TOP}/cpuset/lxc/web/cpuset.effective_cpus"),
        (256 * MIB, f"{TOP}/memory/lxc/web/memory.limit_in_bytes"),
        False,
    ),
    "hybrid": (
        (3.5, f"{TOP}/cpu,cpuacct/user.slice/cpu.cfs_quota_us"),
        (8, f"{TOP}/cpuset/user.slice/cpuset.effective_cpus"),
        (5 * GIB, f"{TOP}/memory/user.slice/memory.limit_in_bytes"),
        False,
    ),
    "v1, rootfs of another container": (
        (None, "the cgroup controller cpu is not mounted"),
        (None, "the cgroup controller cpuset is not mounted"),
        (3 * GIB, MEMORY_V1),
        False,
    ),
    "controllers not mounted": (
        (None, NOT_MOUNTED.format("cpu")),
        (None, NOT_MOUNTED.format("cpuset")),
        (None, NOT_MOUNTED.format("memory")),
        False,
    ),
    "no cgroups": ((None, NONE), (None, NONE), (None, NONE), False),
}


def resources(root: Path, environ: dict[str, str] | None = None, affinity: int = 64) -> Resources:
    return read(root, environ=environ or {}, affinity=range(affinity))


@pytest.mark.parametrize("name", EXPECTED)
def test_limits_are_read_as_the_system_lays_them_out(name: str, tmp_path: Path) -> None:
    quota, cpuset, memory, kubernetes = EXPECTED[name]
    found = resources(build(tmp_path, TREES[name].files))
    assert (found.cpu_quota.value, found.cpu_quota.source) == quota
    assert (found.cpuset.value, found.cpuset.source) == cpuset
    assert (found.memory_limit.value, found.memory_limit.source) == memory
    assert found.kubernetes.value is kubernetes
    assert found.warnings == ()


def test_every_tree_has_a_source_and_is_tested() -> None:
    assert set(TREES) == {*EXPECTED, "namespace without a mount of its own"}
    assert all(tree.source for tree in TREES.values())


def test_a_place_that_nothing_tells_is_warned_about(tmp_path: Path) -> None:
    found = resources(build(tmp_path, TREES["namespace without a mount of its own"].files))
    (warning,) = found.warnings
    assert "/sys/fs/cgroup/memory" in warning
    assert "limits may be missed" in warning


# What is really available, and which one decided


@pytest.mark.parametrize(
    ("tree", "affinity", "cpus", "source"),
    [
        ("docker v2", 64, 1.5, f"cpu_quota: {TOP}/cpu.max"),
        ("docker v2", 1, 1.0, "affinity: sched_getaffinity"),
        (
            "docker v1, observed",
            1,
            1.0,
            f"cpuset: {TOP}/cpuset/cpuset.effective_cpus",
        ),
        ("kubernetes v2 besteffort", 8, 8.0, "host_cpus: /sys/devices/system/cpu/online"),
        ("no cgroups", 3, 3.0, "affinity: sched_getaffinity"),
    ],
)
def test_the_least_decides_and_is_named(
    tree: str, affinity: int, cpus: float, source: str, tmp_path: Path
) -> None:
    found = resources(build(tmp_path, TREES[tree].files), affinity=affinity)
    assert (found.cpus.value, found.cpus.source) == (cpus, source)


def test_quota_above_the_machine_offers_the_machine(tmp_path: Path) -> None:
    files = {**TREES["docker v2"].files, f"{TOP}/cpu.max": "1600000 100000\n"}
    found = resources(build(tmp_path, {**files, f"{TOP}/cpuset.cpus.effective": "0-7\n"}))
    assert found.cpu_quota.value == 16
    assert found.cpus.value == 8


def test_host_values_name_their_files(tmp_path: Path) -> None:
    found = resources(build(tmp_path, machine("0-3,8", 24684084 * 1024)))
    assert (found.host_cpus.value, found.host_cpus.source) == (5, "/sys/devices/system/cpu/online")
    assert (found.host_memory.value, found.host_memory.source) == (25276502016, "/proc/meminfo")


def test_an_empty_root_is_read_without_warnings(tmp_path: Path) -> None:
    found = resources(tmp_path)
    assert found.host_cpus.value == os.cpu_count()
    assert found.host_memory.value is None
    assert found.memory_limit.value is None
    assert found.warnings == ()


def test_affinity_is_the_schedulers_by_default(tmp_path: Path) -> None:
    assert read(tmp_path, environ={}).affinity.value == len(os.sched_getaffinity(0))


# Kubernetes


def test_kubernetes_is_seen_by_its_variable(tmp_path: Path) -> None:
    root = build(tmp_path, TREES["kubernetes v2 besteffort"].files)
    found = resources(root, {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}).kubernetes
    assert (found.value, found.source) == (True, "KUBERNETES_SERVICE_HOST")


def test_kubernetes_is_seen_by_the_service_account(tmp_path: Path) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    root = build(tmp_path, {**TREES["kubernetes v2 besteffort"].files, f"{folder}/": ""})
    found = resources(root).kubernetes
    assert (found.value, found.source) == (True, folder)


def test_an_empty_kubernetes_variable_says_nothing(tmp_path: Path) -> None:
    assert resources(tmp_path, {"KUBERNETES_SERVICE_HOST": ""}).kubernetes.value is False


# What others rely on


def test_json_has_every_reading_with_value_and_source(tmp_path: Path) -> None:
    shown = resources(build(tmp_path, TREES["docker v2"].files)).as_json()
    assert list(shown) == [
        "cpu_quota",
        "cpuset",
        "affinity",
        "host_cpus",
        "cpus",
        "memory_limit",
        "host_memory",
        "kubernetes",
        "descriptors",
    ]
    assert all(set(reading) == {"value", "source"} for reading in shown.values())
    assert shown["cpu_quota"] == {"value": 1.5, "source": f"{TOP}/cpu.max"}
    json.dumps(shown)


def test_this_real_machine_can_be_read() -> None:
    found = read(environ=os.environ)
    assert found.cpus.value is not None
    assert 0 < found.cpus.value <= (os.cpu_count() or 1)
    assert found.host_memory.value


def test_import_starts_nothing_and_needs_only_cheap_modules() -> None:
    heavy = "subprocess", "asyncio", "click", "json", "logging"
    script = f"import sys, mooring.resources; print([n for n in {heavy!r} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
