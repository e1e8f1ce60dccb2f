"""What is refused of clients: counted in the scoreboard, and logged at a limited rate with the address.

An engine's adapter calls `Refusals` where it refuses a request or cuts a connection because of the client.
The counts are `mooring_http_refused_total{reason}`; the lines are for people, and for tools such as fail2ban.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from mooring.logs.escape import escape
from mooring.scoreboard.row import REFUSALS, REFUSED, Row
from mooring.system.unpatched import native

_LINES, _PERIOD = 10, 60.0  # so many lines in so many seconds, in one worker
_DETAIL = 200  # characters of a detail, which may quote the client


class Refusals:
    """Counts and logs what is refused. `row` is asked for at each refusal; any thread may call this.

    `warn` gets a line, and the fields that it contains.
    """

    def __init__(self, row: Callable[[], Row], warn: Callable[..., object]) -> None:
        self._row, self._warn = row, warn
        self._lock = native("_thread", "allocate_lock")()
        self._began = -_PERIOD  # monotonic seconds: when the period of the lines below began
        self._lines = self._silent = 0

    def __call__(self, reason: str, peer: object, detail: str = "") -> None:
        """Count a refusal: `reason` is one of REFUSALS; `peer` is (host, port), a text, or None."""
        now = monotonic()
        with self._lock:  # a lost count would be a lie in the metric; refusals are rare
            self._row().cells[REFUSED + REFUSALS.index(reason)] += 1.0
            if now - self._began >= _PERIOD:
                self._began, self._lines = now, 0
            self._lines += 1
            silent = self._lines > _LINES
            self._silent += silent
            first = silent and self._silent == 1
        if first:
            wait = max(0.0, self._began + _PERIOD - now)
            native("_thread", "start_new_thread")(self._later, (native("time", "sleep"), wait))
        if silent:
            return
        words, host, detail = reason.replace("_", " "), _shown(peer), escape(detail[:_DETAIL])
        fields = {"reason": reason, "peer": host, **({"detail": detail} if detail else {})}
        self._warn(f"refused {host}: {words}{f': {detail}' if detail else ''}", **fields)

    def tell(self) -> None:
        """Say how many had no line, if any: at the end of their period, or of the worker."""
        with self._lock:
            silent, self._silent = self._silent, 0
        if silent:
            self._warn(f"refused {silent} more since the last line", refused=silent)

    def _later(self, sleep: Callable[[float], None], seconds: float) -> None:
        sleep(seconds)
        self.tell()


def _shown(peer: object) -> str:
    """The address alone: so does fail2ban read it, and a port tells nothing."""
    host = peer[0] if isinstance(peer, (tuple, list)) and peer else peer
    return escape(str(host)) if host else "a client"
