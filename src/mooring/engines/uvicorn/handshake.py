"""TLS handshakes that are seen: they count as connections, have the time of a head, and end quietly.

By itself asyncio tells nobody of a connection before its handshake is done. So connections are accepted
without TLS, and begin it here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.utils import get_remote_addr

from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.engines.uvicorn.limits import Crowd, Limits

if TYPE_CHECKING:
    import ssl

_SHUTDOWN = 86400.0  # seconds; a client may still be taking the last answer: watch.py sees when it doesn't

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


class Greeter(asyncio.Protocol):
    """A connection until its handshake is done; for Crowd (limits.py) its own transport too.

    It lets go of the socket that the loop has accepted, and hands it to the loop again: uvloop may read the
    first bytes before `start_tls`, and then they would be lost.
    """

    def __init__(self, owner: Handshakes) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._closed = False
        self._sock: socket.socket | None = None
        self.client: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See whether there is room; then begin the handshake."""
        owner, given = self._owner, transport.get_extra_info("socket")
        self.client = get_remote_addr(cast("Any", transport))
        self._sock = sock = socket.socket(fileno=os.dup(given.fileno()))
        cast("asyncio.Transport", transport).abort()
        owner.pending.add(self)
        count, most = len(owner.connections) + len(owner.pending), owner.limits.max_connections
        if 0 < most < count and not owner.crowd.enter(
            self, {*owner.connections, *owner.pending}, owner.limits
        ):
            owner.pending.discard(self)
            sock.close()
            return
        task = self._loop.create_task(self._begin(sock))
        owner.tasks.add(task)  # a loop has only weak references to its tasks
        task.add_done_callback(owner.tasks.discard)

    async def _begin(self, sock: socket.socket) -> None:
        owner = self._owner
        patience = owner.limits.head_timeout or None
        try:
            _, protocol = await self._loop.connect_accepted_socket(
                owner.make,
                sock,
                ssl=owner.context,
                ssl_handshake_timeout=patience,
                ssl_shutdown_timeout=_SHUTDOWN,
            )
        except OSError:  # what the client sends is no handshake, or it is gone, or late
            if patience is not None and self._loop.time() - self._began >= patience and not self._closed:
                owner.limits.refused("head_timeout", self.client, "a TLS handshake")
        else:
            if isinstance(protocol, LimitedHttpToolsProtocol):
                protocol.made = self._began  # the handshake is a part of the first head's time
        finally:
            owner.pending.discard(self)

    def idle_since(self) -> float | None:
        """The loop's time since which it has been silent, as far as is known."""
        return None if self._closed or self not in self._owner.pending else self._began

    @property
    def transport(self) -> Greeter:
        """What closes it."""
        return self

    def get_extra_info(self, _name: str) -> None:
        """Nothing: a handshake that goes on is no request."""

    def close(self) -> None:
        """End it."""
        self._closed = True
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
