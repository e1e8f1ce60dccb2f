"""What a worker, a template or a companion has left in its process group when it ended: it ends, too.

Not for what has left the group: system/offspring.py.
"""

from __future__ import annotations

from collections.abc import Callable

from mooring.supervisor.part import Part
from mooring.system.groups import Groups


class Leftovers(Part):
    """The groups of those that have ended. `hurried` returns whether the stop is not to wait."""

    def __init__(self, hurried: Callable[[], bool]) -> None:
        self._groups, self._hurried = Groups(), hurried

    def ended(self, leader: int) -> None:
        """A group's leader has ended, and what is left in the group got a TERM."""
        self._groups.add(leader)

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds)."""
        return self._groups.next_look()

    def expire(self) -> None:
        """Kill what has not ended in time."""
        self._groups.look(self._hurried())

    def busy(self) -> bool:
        """Whether a group may not be empty; a stop waits for that."""
        self._groups.look(self._hurried())
        return bool(self._groups)
