"""TLS handshakes that are seen: they count as connections, have the time of a head, and end quietly.

By itself asyncio tells nobody of a connection before its handshake is done. So a connection is accepted
without TLS, and begins it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.engines.uvicorn.limits import Crowd, Limits

if TYPE_CHECKING:
    import ssl

Make = Callable[[], Any]


class Handshakes:
    """Those of one worker that are not done. `make` makes uvicorn's protocol; `connections` are uvicorn's."""

    def __init__(self, make: Make, context: ssl.SSLContext, connections: set[Any], limits: Limits) -> None:
        self.make, self.context, self.limits = make, context, limits
        self.connections = connections
        self.pending: set[Greeter] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.crowd = Crowd()

    def __call__(self) -> asyncio.Protocol:
        """What a loop makes for each connection."""
        return Greeter(self)

    def all(self) -> list[Any]:
        """All connections, those in their handshake too."""
        return [*self.connections, *self.pending]


class Greeter(asyncio.Protocol):
    """A connection until its handshake is done."""

    def __init__(self, owner: Handshakes) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.client: Any = None
        self.began = self._loop.time()
        self._told = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See whether there is room; then begin the handshake."""
        owner = self._owner
        self.transport, self.client = transport, transport.get_extra_info("peername")
        owner.pending.add(self)
        most = owner.limits.max_connections
        count = len(owner.connections) + len(owner.pending)
        if 0 < most < count and not owner.crowd.enter(self, set(owner.all()), owner.limits):
            self._told = True
            transport.close()
        task = self._loop.create_task(self._begin())
        owner.tasks.add(task)  # a loop has only weak references to its tasks
        task.add_done_callback(owner.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """Before its handshake."""
        self._owner.pending.discard(self)

    def idle_since(self) -> float | None:
        """The loop's time since which it has been silent, as far as is known (limits.py)."""
        if self.transport is None or self.transport.is_closing() or self not in self._owner.pending:
            return None
        return self.began

    async def _begin(self) -> None:
        owner, early = self._owner, Early()
        patience = owner.limits.head_timeout or None
        try:
            if self.transport.is_closing():
                return
            secure: Any = await self._loop.start_tls(
                self.transport, early, owner.context, server_side=True, ssl_handshake_timeout=patience
            )
        except (OSError, RuntimeError):  # what the client sends is no handshake, or the client is gone
            late = patience is not None and self._loop.time() - self.began >= patience
            if late and not self._told:
                owner.limits.refused("head_timeout", self.client, "a TLS handshake")
            return
        finally:
            owner.pending.discard(self)
        if not self.transport.is_closing():
            early.give(owner.make(), secure, self.began)


class Early(asyncio.Protocol):
    """Keeps what comes with the handshake's last bytes, until uvicorn's protocol knows the connection."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lost = self._ended = False

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self._data += data

    def eof_received(self) -> None:
        """The connection is being closed."""
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody needs to know it any more."""
        self._lost = True

    def give(self, protocol: Any, transport: Any, began: float) -> None:
        """Have `protocol` go on."""
        if self._lost:
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if isinstance(protocol, LimitedHttpToolsProtocol):
            protocol.made = protocol.since = began  # the handshake is a part of the first head's time
        if self._data:
            protocol.data_received(bytes(self._data))
        if self._ended and not transport.is_closing():
            transport.close()
