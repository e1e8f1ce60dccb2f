"""The least rate at which a request's body must come while the application waits for it.

In each PERIOD of waiting it must bring RATE bytes a second. What it brings beyond that counts for later
periods, but for no longer than a body may be silent: so a pause after a fast start is no drip, and a fast
start buys no hours for a drip.
"""

from __future__ import annotations

PERIOD, RATE = 20.0, 240  # seconds; bytes a second


class Pace:
    """How fast one body comes. `taken` are its bytes at the first look."""

    __slots__ = ("_saved", "_taken", "_waited")

    def __init__(self, taken: int = 0) -> None:
        self._taken, self._waited, self._saved = taken, 0.0, 0.0

    def is_slow(self, taken: int, passed: float, silence: float) -> bool:
        """Whether it comes too slowly, after `passed` more seconds of waiting and `taken` bytes in all.

        `silence` is MOORING_BODY_TIMEOUT in seconds.
        """
        self._waited += passed
        if self._waited < PERIOD:
            return False
        self._saved += (taken - self._taken) / RATE - self._waited
        self._saved = min(self._saved, max(0.0, silence - PERIOD))
        self._taken, self._waited = taken, 0.0
        return self._saved < 0
