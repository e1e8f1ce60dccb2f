"""The end of a drain: which connections may be closed, and when the engine may stop.

In a drain each HTTP/1.x response closes its connection. So the connections that are left are silent, or their
request came before the drain. `Gate` is for engines that can only close all connections at once, `Idle` for
engines that give access to each connection. The caller does the waiting, since it knows its event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from mooring.engines import Serving
from mooring.engines.common.connections import Connections

_PAUSE, _SHARE = 0.02, 10  # pause between two looks: at least these seconds, and so many times a look's time


class Gate:
    """One drain. Set `multiplexed` when an HTTP/2 request arrives: no response closes its connection."""

    def __init__(self, serving: Serving, in_flight: Callable[[], object]) -> None:
        """`in_flight()` is true while requests are in flight. Create the gate when the drain begins."""
        self.multiplexed = False
        self.pause = _PAUSE
        self._in_flight = in_flight
        self._idle = serving.plan.settings.drain_idle
        self.connections = Connections(serving.doors.names)
        self._began = self._busy = time.monotonic()
        self._quiet = 0

    def passed(self) -> bool:
        """Whether no connection is left, or only ones that were idle for drain_idle seconds. Ask again after
        `pause` seconds.
        """
        began = time.monotonic()
        if self.multiplexed and began - self._began >= self._idle:
            return True
        if self._in_flight():
            self._busy, self._quiet = began, 0
            return False
        silent = all(self._is_idle(each, began) for each in self.connections.silences())
        self.pause = max(_PAUSE, _SHARE * (time.monotonic() - began))
        # twice in a row: just after an accept or a response, neither check may see the connection
        self._quiet = self._quiet + 1 if silent else 0
        return self._quiet > 1

    def _is_idle(self, silence: float | None, now: float) -> bool:
        # Silence before the drain does not count: each client has the whole time to send one more request.
        idle = now - self._busy if silence is None else min(silence, now - self._began)
        return idle >= self._idle


LOOK = 0.05  # seconds between two looks; an accepted connection has at least this long to deliver its request

Connection = TypeVar("Connection", bound=Hashable)


class Idle:
    """Finds the connections that have been idle for `limit` seconds of the drain.

    A connection's mark is None while the connection is busy, else a value that changes with everything that
    the client does. Time before the drain does not count: each client has the whole time to send one more
    request.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: dict[Hashable, tuple[object, float]] = {}

    def expired(self, now: float, marks: Iterable[tuple[Connection, object]]) -> list[Connection]:
        """The connections that have reached the limit at `now`. `marks`: always those of all connections."""
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
