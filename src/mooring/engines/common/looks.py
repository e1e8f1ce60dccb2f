"""Which connections have been idle for long enough in a drain, where an engine shows us each of them.

The engine's adapter looks every LOOK seconds, and closes what is due. For engines that close
connections only all at once there is gate.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

LOOK = 0.05  # seconds between two looks; what an accepted connection has at least, to deliver its request

Connection = TypeVar("Connection", bound=Hashable)


class Idle:
    """The connections that have been idle for `limit` seconds of the drain.

    A connection's mark is None while it is busy; else it changes with all that the client does. What was
    before the drain doesn't count: each client has the whole time to send one more request.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: dict[Hashable, tuple[object, float]] = {}

    def expired(self, now: float, marks: Iterable[tuple[Connection, object]]) -> list[Connection]:
        """Those that are due now; `marks` are those of all connections, at each look."""
        before, self._since, due = self._since, {}, []
        for connection, mark in marks:
            if mark is None:
                continue
            known, since = before.get(connection, (None, now))
            since = since if known == mark else now
            self._since[connection] = mark, since
            if now - since >= self._limit:
                due.append(connection)
        return due
