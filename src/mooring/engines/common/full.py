"""Whether a worker has its most connections: told to the supervisor, and at times to people."""

from __future__ import annotations

import logging
from time import monotonic

from mooring.engines import Serving

_LOG = logging.getLogger("mooring")
_QUIET = 60.0  # seconds between two warnings
_LEFT = 0.9  # of the most: with so many left the worker is not full any more


class Full:
    """Call it with the number of connections: for each that is too many, and at each look at all of them."""

    def __init__(self, serving: Serving) -> None:
        self._most, self._tell = serving.plan.max_connections, serving.full
        self._full, self._said = False, -_QUIET

    def __call__(self, count: int) -> None:
        """Note how many connections there are."""
        if count > self._most:
            if not self._full:
                self._full = True
                self._tell(True)
            if monotonic() - self._said >= _QUIET:
                self._said = monotonic()
                _LOG.warning(
                    "this worker has its most connections (%d): the oldest idle ones are closed for new "
                    "ones; MOORING_MAX_CONNECTIONS sets the number",
                    self._most,
                )
        elif self._full and count <= self._most * _LEFT:
            self._full = False
            self._tell(False)
