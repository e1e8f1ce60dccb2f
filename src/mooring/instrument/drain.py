"""Whether this worker drains: what its engine knows, and the wrapper around the application acts on.

The engine calls `begin` when it takes nothing new any more. From then on each response of HTTP/1.x carries
`Connection: close`, so that its client comes back on another connection, to another worker. How connections
end is the engine's own business (engines/).
"""

from __future__ import annotations

from collections.abc import Callable

CLOSE = (b"connection", b"close")


class Drain:
    """One per worker. `begun` is looked at for each response."""

    __slots__ = ("_told", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._told: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Begin; a second call changes nothing. Safe in a signal handler."""
        if not self.begun:
            self.begun = True
            for tell in self._told:
                tell()

    def on_begin(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when it begins; at once where it has."""
        self._told.append(tell)
        if self.begun:
            tell()
