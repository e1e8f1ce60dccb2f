"""When a draining worker may end its engine, for engines that close connections only all at once.

In a drain each response of HTTP/1.x closes its connection. So the connections that are left are silent ones,
and those whose request was there before. Waiting is the caller's: it knows its loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mooring.engines import Serving
from mooring.engines.common.connections import Connections

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
