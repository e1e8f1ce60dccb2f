"""A drain's end: which connections may be closed, when the engine may be stopped, what had to be cut.

In a drain each response of HTTP/1.x closes its connection. So the connections that are left are silent ones,
and those whose request was there before. `Gate` is for engines that close connections only all at once,
`Idle` for those that show us each of them. Waiting is the caller's: it knows its loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from mooring.engines import Serving
from mooring.engines.common.connections import Connections
from mooring.logs.escape import escape

_PAUSE, _SHARE = 0.02, 10  # seconds between two looks, at least; and so many times as long as a look takes


class Gate:
    """One drain. `multiplexed` is to be set when a request of HTTP/2 came: its connections end otherwise."""

    def __init__(self, serving: Serving, in_flight: Callable[[], object]) -> None:
        """`in_flight` is true as long as requests are being answered. To be made when the drain begins."""
        self.multiplexed = False
        self.pause = _PAUSE
        self._in_flight = in_flight
        self._idle = serving.plan.settings.drain_idle
        self.connections = Connections(serving.sockets)
        self._began = self._busy = time.monotonic()
        self._quiet = 0

    def passed(self) -> bool:
        """Whether nobody is left, or only connections that have been idle for their time; to be asked again
        after `pause` seconds.
        """
        began = time.monotonic()
        if self.multiplexed and began - self._began >= self._idle:
            return True
        if self._in_flight():
            self._busy, self._quiet = began, 0
            return False
        silent = all(self._is_idle(each, began) for each in self.connections.silences())
        self.pause = max(_PAUSE, _SHARE * (time.monotonic() - began))
        # twice in a row: what was accepted, or answered, a moment ago may be between two places
        self._quiet = self._quiet + 1 if silent else 0
        return self._quiet > 1

    def _is_idle(self, silence: float | None, now: float) -> bool:
        # What was before the drain does not count: each client has the whole time for one more request.
        idle = now - self._busy if silence is None else min(silence, now - self._began)
        return idle >= self._idle


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


_NAMED = 10


def warn_of_cut(log: logging.Logger, serving: Serving, count: int | None = None) -> None:
    """Warn of the requests in flight, up to 10 by method, path and age; `count` where the engine knows it
    better. Says nothing where there are none.
    """
    requests = serving.in_flight()
    count = len(requests) if count is None else count
    if not count:
        return
    names = ", ".join(
        f"{each.method} {escape(each.path)} (after {each.age:.1f} s)" for each in requests[:_NAMED]
    )
    more = f" and {count - _NAMED} more" if names and count > _NAMED else ""
    log.warning(
        "%d request%s outlived the grace period of %g s, and %s cut%s%s%s",
        count,
        "" if count == 1 else "s",
        serving.plan.settings.graceful_timeout,
        "was" if count == 1 else "were",
        ": " if names else "",
        names,
        more,
    )
