"""What a worker, a template or a companion has left when it ended: it ends, too.

That is what is left in its process group, and the groups of those children that a worker has told of
(worker/apart.py). A daemon is neither: two forks and a session of its own are how a process says that it is
to stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mooring.supervisor.part import Part
from mooring.system import offspring, process
from mooring.system.groups import Groups
from mooring.worker import messages


class Leftovers(Part):
    """The groups of those that have ended. `hurried` returns whether the stop is not to wait."""

    def __init__(self, hurried: Callable[[], bool]) -> None:
        self._groups, self._hurried = Groups(), hurried
        # Groups of which workers have told: by worker, and by the process that has told of them.
        self._apart: dict[int, dict[int, list[int]]] = {}

    def hear(self, worker: int, message: dict[str, Any]) -> None:
        """Note which children lead groups of their own, of a worker or of its arbiter's workers.

        The application has the pipe too, so only what /proc confirms counts, and leaders alone: a child may
        join any group of its session, the supervisor's too.
        """
        told = messages.apart(message)
        if told is None or not worker:
            return
        if told.parent != worker and offspring.parent(told.parent) != worker:
            return
        own = [pid for pid in told.children if offspring.parent(pid) == told.parent]
        found = [pid for pid in own if process.leads_group(pid)]
        self._apart.setdefault(worker, {})[told.parent] = found

    def gone(self, worker: int, pid: int) -> None:
        """A worker of an arbiter has ended."""
        for group in self._apart.get(worker, {}).pop(pid, ()):
            self._end(group)

    def ended(self, leader: int) -> None:
        """A group's leader has ended, and what is left in the group got a TERM."""
        self._groups.add(leader)
        for groups in self._apart.pop(leader, {}).values():
            for group in groups:
                self._end(group)

    def _end(self, group: int) -> None:
        process.term_group(group)
        self._groups.add(group)

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds)."""
        return self._groups.next_look()

    def expire(self) -> None:
        """Kill what has not ended in time."""
        self._groups.look(self._hurried())

    def busy(self) -> bool:
        """Whether a group may not be empty; a stop waits for that."""
        self.expire()
        return bool(self._groups)
