"""What is refused of clients: counted in the scoreboard, and logged at a limited rate with the address.

An engine's adapter calls `Refusals` where it refuses a request or cuts a connection because of the client.
The counts are `mooring_http_refused_total{reason}`; the lines are for people, and for tools such as fail2ban.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from mooring.logs.escape import escape
from mooring.scoreboard.row import REFUSALS, REFUSED, Row

_DETAIL = 200  # characters: some are what the client has sent
_LINES, _PERIOD = 10, 60.0  # so many lines in so many seconds, in one worker


class Refusals:
    """Counts and logs what is refused. `row` is asked for at each refusal; any thread may call this."""

    def __init__(self, row: Callable[[], Row], warn: Callable[[str], object]) -> None:
        self._row, self._warn = row, warn
        self._lock = threading.Lock()
        self._began = -_PERIOD  # monotonic seconds: when the period of the lines below began
        self._lines = self._silent = 0

    def __call__(self, reason: str, peer: object, detail: str = "") -> None:
        """Count a refusal: `reason` is one of REFUSALS; `peer` is (host, port), a text, or None."""
        now = monotonic()
        with self._lock:  # a lost count would be a lie in the metric; refusals are rare
            self._row().cells[REFUSED + REFUSALS.index(reason)] += 1.0
            silent = 0
            if now - self._began >= _PERIOD:
                silent, self._silent, self._began, self._lines = self._silent, 0, now, 0
            self._lines += 1
            if self._lines > _LINES:
                self._silent += 1
                return
        if silent:
            self._warn(f"refused {silent} more since the last line")
        words = reason.replace("_", " ")
        self._warn(f"refused {_shown(peer)}: {words}{f': {escape(detail[:_DETAIL])}' if detail else ''}")


def _shown(peer: object) -> str:
    """The address alone: so does fail2ban read it, and a port tells nothing."""
    host = peer[0] if isinstance(peer, (tuple, list)) and peer else peer
    return escape(str(host)) if host else "a client"
