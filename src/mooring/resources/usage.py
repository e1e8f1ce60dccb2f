"""Values that the metrics read repeatedly: how long the cgroup was throttled, its memory, its OOM kills.

Each function returns None if the kernel does not say, and never raises or warns. Sources: as in limits.py.
"""

from __future__ import annotations

from pathlib import Path

from mooring.resources.cgroups import CgroupFiles, Cgroups
from mooring.resources.limits import field, whole

_ROOT = Path("/")


def cpu_throttled_seconds(root: Path = _ROOT) -> float | None:
    """Seconds that CPU quotas held tasks back, summed over CPUs, since the cgroup was made; from cpu.stat.

    The kernel counts them in the cgroup that sets the quota. So this is the maximum of all visible levels,
    which never goes down.
    """
    files = CgroupFiles(root)
    hierarchy = Cgroups.find(files).hierarchy("cpu")
    name, unit = ("throttled_usec", 1e6) if hierarchy.version == 2 else ("throttled_time", 1e9)
    times = (field(files.text(f"{folder}/cpu.stat"), name) for folder in hierarchy.folders)
    return max((time / unit for time in times if time is not None), default=None)


def memory_current(root: Path = _ROOT) -> int | None:
    """Bytes that this process's cgroup uses, page cache included: memory.current or memory.usage_in_bytes."""
    files = CgroupFiles(root)
    hierarchy = Cgroups.find(files).hierarchy("memory")
    name = "memory.current" if hierarchy.version == 2 else "memory.usage_in_bytes"
    contents = (files.text(f"{folder}/{name}") for folder in hierarchy.folders[:1])
    return next((whole(content.strip()) for content in contents if content is not None), None)


def oom_kills(root: Path = _ROOT) -> int | None:
    """How many processes were killed for memory in this cgroup: memory.events or memory.oom_control.

    Version 2 includes the cgroups below it; version 1 counts since Linux 4.13.
    """
    files = CgroupFiles(root)
    hierarchy = Cgroups.find(files).hierarchy("memory")
    name = "memory.events" if hierarchy.version == 2 else "memory.oom_control"
    counts = (field(files.text(f"{folder}/{name}"), "oom_kill") for folder in hierarchy.folders[:1])
    return next(counts, None)
