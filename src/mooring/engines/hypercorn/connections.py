"""Closes hypercorn's connections when their clients disconnect, and lists the open ones for the drain's gate.

By itself hypercorn 0.18 keeps the descriptor until the keep-alive timeout: a load balancer's TCP checks would
use up the descriptors that a process may open.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from hypercorn.events import Updated

connections: set[Any] = set()  # the open connections of this process


class _EndsWithItsClient:
    """The mixin for hypercorn's TCPServer, on asyncio and on trio."""

    _left = False

    async def run(self) -> None:
        """Run as hypercorn's does, and be in `connections` meanwhile."""
        connections.add(self)
        server: Any = super()
        try:
            await server.run()
        finally:
            connections.discard(self)

    async def _read_data(self) -> None:
        server: Any = super()
        await server._read_data()
        self._left = True
        await self.idle_task.stop()  # type: ignore[attr-defined]

    async def protocol_send(self, event: Any) -> None:
        if self._left and isinstance(event, Updated):
            return  # it would start the idle timer again
        server: Any = super()
        await server.protocol_send(event)


def install(run: ModuleType) -> None:
    """Make `worker_serve` of `run`, one of hypercorn's run modules, use this mixin."""
    original = vars(run)["TCPServer"]
    if not issubclass(original, _EndsWithItsClient):
        vars(run)["TCPServer"] = type("TCPServer", (_EndsWithItsClient, original), {})
