"""What the cgroup files say: CPU quota, cpuset and memory limit, the tightest of all visible ancestors.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max, cpuset.cpus.effective, memory.max,
memory.high), cgroup-v1/memory.rst and cpusets.rst, scheduler/sched-bwc.rst (cpu.cfs_quota_us). Every cgroup
bounds all cgroups below it, so an ancestor's limit holds as much as the process's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mooring.resources.cgroups import CgroupFiles, Hierarchy
from mooring.resources.model import Reading

N = TypeVar("N", int, float)
# One level: the file and its limit, None if the file sets no limit.
Level = tuple[str, "N | None"]

_PERIOD = "100000"  # microseconds; the kernel's default if cpu.max is written without a period
# CPU numbers from here on are taken for an error; kernels are built for at most 8192 CPUs.
_MOST_CPUS = 65536


def whole(text: str) -> int | None:
    """A plain decimal number as the kernel writes it, at most 20 digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def cpu_list(text: str) -> frozenset[int] | None:
    """The CPUs of a list such as `0-3,8`; empty for an empty text, None for a malformed one."""
    cpus: set[int] = set()
    for part in text.split(",") if text else ():
        low, dash, high = part.partition("-")
        first = whole(low)
        last = whole(high) if dash else first
        if first is None or last is None or not first <= last < _MOST_CPUS:
            return None
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def cpu_quota(files: CgroupFiles, hierarchy: Hierarchy) -> Reading[float]:
    """Cores, from cpu.max (v2) or cpu.cfs_quota_us and cpu.cfs_period_us (v1)."""
    name, level = ("cpu.max", _quota_v2) if hierarchy.version == 2 else ("cpu.cfs_quota_us", _quota_v1)
    return _tightest(hierarchy, name, _levels(files, hierarchy, level))


def memory_limit(files: CgroupFiles, hierarchy: Hierarchy, host: int | None) -> Reading[int]:
    """Bytes, from memory.max and memory.high (v2) or memory.limit_in_bytes and memory.stat (v1).

    memory.high counts like memory.max: processes beyond it are not killed, but throttled, and their memory is
    reclaimed heavily, which a server must avoid just as much. The hierarchical_memory_limit in v1's
    memory.stat includes the ancestors that a container cannot see. A value above `host` (bytes), such as v1's
    9223372036854771712, limits nothing. A value equal to `host` is kept: lxcfs derives MemTotal from the
    limit. Swap is not counted.
    """
    unified = hierarchy.version == 2
    name, level = ("memory.max", _memory_v2) if unified else ("memory.limit_in_bytes", _memory_v1)
    # If MemTotal is not known, 2**60 bytes take its place: no machine has more.
    most = 1 << 60 if host is None else host
    levels = [(file, None if (n or 0) > most else n) for file, n in _levels(files, hierarchy, level)]
    return _tightest(hierarchy, name, levels)


def memory_levels(files: CgroupFiles, folder: str, version: int) -> Sequence[Level[int]]:
    """The files of one cgroup that may limit memory, each with its limit in bytes, or None for no limit."""
    return (_memory_v2 if version == 2 else _memory_v1)(files, folder)


def cpuset(files: CgroupFiles, hierarchy: Hierarchy) -> Reading[int]:
    """How many CPUs the cpuset holds, from cpuset.cpus.effective (v2) or cpuset.effective_cpus (v1).

    The kernel has already cut an effective list to the ancestors' CPUs, so the nearest list decides. An
    ancestor's list may even be smaller and not bind this process, if the ancestor gave CPUs to a partition
    (cgroup-v2.rst, cpuset.cpus.partition). If there is no effective list (before Linux 3.17), the CPUs are
    those in cpuset.cpus of this cgroup and of every ancestor. An empty list inherits.
    """
    effective = "cpuset.cpus.effective" if hierarchy.version == 2 else "cpuset.effective_cpus"
    allowed, source = frozenset[int](), ""
    for file in (f"{folder}/{name}" for folder in hierarchy.folders for name in (effective, "cpuset.cpus")):
        if not (cpus := _cpus(files, file)):
            continue
        cut = allowed & cpus if allowed else cpus
        if cut and cut != allowed:
            allowed, source = cut, file
        if file.endswith(effective):
            break
    if not allowed:
        return Reading(None, _no_file(hierarchy, effective))
    return Reading(len(allowed), source)


def _cpus(files: CgroupFiles, file: str) -> frozenset[int] | None:
    content = files.text(file)
    if content is None:
        return None
    cpus = cpu_list(content.strip())
    if cpus is None:
        files.reject(file, content, "a list of CPUs such as 0-3,8")
    return cpus


def _levels(
    files: CgroupFiles, hierarchy: Hierarchy, level: Callable[[CgroupFiles, str], Sequence[Level[N]]]
) -> list[Level[N]]:
    return [found for folder in hierarchy.folders for found in level(files, folder)]


def _quota_v2(files: CgroupFiles, folder: str) -> Sequence[Level[float]]:
    file = f"{folder}/cpu.max"
    if (content := files.text(file)) is None:
        return ()
    quota, period = (*content.split(), _PERIOD)[:2] if len(content.split()) in (1, 2) else ("", "")
    microseconds, length = whole(quota), whole(period)
    if not length or not (microseconds or quota == "max"):
        files.reject(file, content, "QUOTA PERIOD in microseconds, or max PERIOD")
        return ()
    return ((file, microseconds / length if microseconds else None),)


def _quota_v1(files: CgroupFiles, folder: str) -> Sequence[Level[float]]:
    file, beside = f"{folder}/cpu.cfs_quota_us", f"{folder}/cpu.cfs_period_us"
    if (content := files.text(file)) is None:
        return ()
    if content.strip() == "-1":
        return ((file, None),)
    if not (microseconds := whole(content.strip())):
        files.reject(file, content, "microseconds, or -1")
        return ()
    period = files.text(beside)
    length = whole((_PERIOD if period is None else period).strip())
    if not length:
        files.reject(beside, period or "", "microseconds")
        return ()
    return ((file, microseconds / length),)


def _memory_v2(files: CgroupFiles, folder: str) -> Sequence[Level[int]]:
    levels: list[Level[int]] = []
    for file in (f"{folder}/memory.max", f"{folder}/memory.high"):
        if (content := files.text(file)) is None:
            continue
        limit = whole(content.strip())
        if limit is None and content.strip() != "max":
            files.reject(file, content, "bytes, or max")
            continue
        levels.append((file, limit))
    return levels


def _memory_v1(files: CgroupFiles, folder: str) -> Sequence[Level[int]]:
    levels: list[Level[int]] = []
    file, statistics = f"{folder}/memory.limit_in_bytes", f"{folder}/memory.stat"
    if (content := files.text(file)) is not None:
        if (limit := whole(content.strip())) is None:
            files.reject(file, content, "bytes")
        else:
            levels.append((file, limit))
    hierarchical = field(files.text(statistics), "hierarchical_memory_limit")
    if hierarchical is not None:
        levels.append((statistics, hierarchical))
    return levels


def field(content: str | None, name: str) -> int | None:
    """The number after `name` in a file of `NAME NUMBER` lines; None if it is missing."""
    for line in (content or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return whole(value.strip())
    return None


def _tightest(hierarchy: Hierarchy, name: str, levels: Sequence[Level[N]]) -> Reading[N]:
    """The smallest limit; of equal limits that of the process's own cgroup, or of the nearest ancestor."""
    limits = [(limit, file) for file, limit in levels if limit is not None]
    if limits:
        value, source = min(limits, key=lambda found: found[0])
        return Reading(value, source)
    own = [file for file, _ in levels if file.endswith(f"/{name}")]
    if not own:
        return Reading(None, _no_file(hierarchy, name))
    above = len(own) - 1
    ancestors = f" and its {above} ancestor{'s' if above > 1 else ''}" if above else ""
    return Reading(None, f"no limit in {own[0]}{ancestors}")


def _no_file(hierarchy: Hierarchy, name: str) -> str:
    return f"no usable {name} in {hierarchy.folders[0]} or above" if hierarchy.folders else hierarchy.why_not
