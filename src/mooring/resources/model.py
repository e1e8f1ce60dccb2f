"""The types of the results: each value with the place where it was read. Nothing is read here."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Reading(NamedTuple, Generic[T]):
    """One value and where it comes from.

    `value` is None when there is no limit, or when it is not known. `source` is the file that was read,
    absolute as this process sees it, or a short explanation such as `no limit in /sys/fs/cgroup/cpu.max and
    its 2 ancestors`.
    """

    value: T | None
    source: str


class Resources(NamedTuple):
    """What this machine or container really offers; made by `read`.

    - `cpu_quota`: cores, may be a fraction; of the process's own cgroup or its tightest visible ancestor
    - `cpuset`: how many CPUs the effective cpuset holds
    - `affinity`: how many CPUs the scheduler may put this process on (sched_getaffinity)
    - `host_cpus`: CPUs online
    - `cpus`: cores really available, the least of the four above; its source is `NAME: SOURCE` of that one
    - `memory_limit`: bytes, without swap; of the same cgroups, `memory.high` counting like `memory.max`
    - `host_memory`: bytes, MemTotal
    - `descriptors`: how many a process may have open (RLIMIT_NOFILE)
    - `kubernetes`: whether this runs in a Kubernetes pod
    - `warnings`: one line for each file that could not be used, with its name and content
    """

    cpu_quota: Reading[float]
    cpuset: Reading[int]
    affinity: Reading[int]
    host_cpus: Reading[int]
    cpus: Reading[float]
    memory_limit: Reading[int]
    host_memory: Reading[int]
    kubernetes: Reading[bool]
    warnings: tuple[str, ...]
    descriptors: Reading[int] = Reading(None, "not read")

    def as_json(self) -> dict[str, dict[str, object]]:
        """`{NAME: {"value", "source"}}` for every reading, in the order above; the warnings are not in it."""
        readings = ((name, getattr(self, name)) for name in self._fields if name != "warnings")
        return {name: {"value": reading.value, "source": reading.source} for name, reading in readings}
