"""Process groups whose leader has ended: what is left in them got a TERM, and is killed if it stays."""

from __future__ import annotations

import time

from mooring.system import process

_PATIENCE, _NAP = 1.0, 0.02  # seconds from TERM to KILL; between two looks whether a group is empty


class Groups:
    """The groups that are not empty yet. A group's number is not given to another process meanwhile."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}  # by group, when it is to be killed (monotonic seconds)

    def add(self, group: int) -> None:
        """Watch a group from now on; its leader has ended, and the group got a TERM."""
        self._due[group] = time.monotonic() + _PATIENCE

    def __bool__(self) -> bool:
        """Whether there is a group that may not be empty."""
        return bool(self._due)

    def next_look(self) -> float | None:
        """When `look` is due (monotonic seconds); None: there is no group."""
        return time.monotonic() + _NAP if self._due else None

    def look(self, hurried: bool = False) -> None:
        """Forget the groups that are empty; kill those whose time is over, or all of them if `hurried`."""
        now = time.monotonic()
        for group, due in list(self._due.items()):
            if not process.group_lives(group):
                del self._due[group]
            elif hurried or due <= now:
                process.kill_rest(group)
                del self._due[group]
