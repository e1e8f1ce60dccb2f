"""How much memory is left: the limit and the memory in use, of each cgroup that limits it and of the machine.

Memory in use is what the kernel cannot free by dropping file pages: a full page cache is no full container.
For a cgroup, it is the charge without inactive_file and active_file of memory.stat (cgroup-v2.rst,
cgroup-v1/memory.rst; shared memory is in neither). For the machine, it is MemTotal - MemAvailable
(proc_meminfo(5)).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mooring.resources.cgroups import CgroupFiles, Cgroups
from mooring.resources.limits import field, memory_levels, whole

_ROOT = Path("/")
_MEMINFO = "/proc/meminfo"


class Room(NamedTuple):
    """One limit in bytes, the bytes in use under it (None: not known), and the file that sets it."""

    limit: int
    used: int | None
    source: str


def memory_rooms(root: Path = _ROOT) -> list[Room]:
    """Every limit that binds this process: its own cgroup's, then the ancestors', then the machine's."""
    files = CgroupFiles(root)
    hierarchy = Cgroups.find(files).hierarchy("memory")
    found: list[Room] = []
    for folder in hierarchy.folders:
        used = _used(files, folder, hierarchy.version)
        levels = memory_levels(files, folder, hierarchy.version)
        found += [Room(limit, used, file) for file, limit in levels if limit is not None]
    machine = _machine(files)
    if machine is not None:
        # In version 1, a cgroup without a limit says 9223372036854771712.
        found = [*(room for room in found if room.limit <= machine.limit), machine]
    return found


def _used(files: CgroupFiles, folder: str, version: int) -> int | None:
    unified = version == 2
    charged = files.text(f"{folder}/{'memory.current' if unified else 'memory.usage_in_bytes'}")
    charge = whole(charged.strip()) if charged is not None else None
    if charge is None:
        return None
    statistics = files.text(f"{folder}/memory.stat")
    prefix = "" if unified else "total_"
    cached = sum(field(statistics, f"{prefix}{name}_file") or 0 for name in ("inactive", "active"))
    return max(0, charge - cached)


def _machine(files: CgroupFiles) -> Room | None:
    sizes = {}
    for line in (files.text(_MEMINFO) or "").splitlines():
        name, _, rest = line.partition(":")
        sizes[name] = whole(rest.removesuffix("kB").strip())
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if not total or available is None:
        return None
    return Room(total * 1024, max(0, total - available) * 1024, _MEMINFO)
