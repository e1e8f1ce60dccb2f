"""Whether this worker drains: set by its engine, read by the wrapper around the application.

The engine calls `begin` when it accepts nothing new any more. From then on each HTTP/1.x response has
`Connection: close`, so that the client's next request uses another connection, to another worker. Not for
closing connections: engines/.
"""

from __future__ import annotations

from collections.abc import Callable

CLOSE = (b"connection", b"close")


class DrainState:
    """The drain of one worker. `begun` is read for each response.

    `asked`: the stop was requested. `unasked` says why, where nobody has ordered it; else it is empty.
    """

    __slots__ = ("_told", "asked", "begun", "unasked")

    def __init__(self) -> None:
        self.begun = self.asked = False
        self.unasked = ""
        self._told: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Begin the drain; a second call changes nothing. Safe in a signal handler."""
        if not self.begun:
            self.begun = True
            for tell in self._told:
                tell()

    def on_begin(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the drain begins, or now if it has begun."""
        self._told.append(tell)
        if self.begun:
            tell()
