"""TLS on asyncio and uvloop: a connection counts from its first moment, before its handshake is over.

By themselves the loops tell of a connection only then: handshakes that never end would be without number.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from mooring.engines.hypercorn.connections import HANDSHAKE, Member, connections

_SHUTDOWN = 86400.0  # seconds; a client may still be taking the last answer: limits.py sees when it doesn't


class Handshake(Member, asyncio.Protocol):
    """The protocol of a new connection, which starts TLS, with `made` as the protocol above it."""

    def __init__(
        self, made: Callable[[], asyncio.StreamReaderProtocol], context: ssl.SSLContext, timeout: float
    ) -> None:
        self._made, self._context, self._timeout = made, context, timeout
        self._early = b""

    def connection_made(self, transport: Any) -> None:
        """Begin: nothing is to be read before TLS reads it."""
        self._transport = transport
        transport.pause_reading()
        if self.enter():
            self._running = asyncio.get_running_loop().create_task(self._run())  # a loop holds tasks weakly
        else:
            connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Keep it for TLS: uvloop begins to read after `connection_made`."""
        self._early += data

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began, protocol, secure = loop.time(), self._made(), None
        protocol._over_ssl = True  # type: ignore[attr-defined]  # the client may leave before connection_made
        try:
            starting = loop.create_task(
                loop.start_tls(
                    self._transport,
                    protocol,
                    self._context,
                    server_side=True,
                    ssl_handshake_timeout=self._timeout,
                    ssl_shutdown_timeout=_SHUTDOWN,
                )
            )
            await asyncio.sleep(0)  # it stops the reading
            await asyncio.sleep(0)  # its protocol knows the transport
            self._hand_over()
            secure = await starting
        except (OSError, RuntimeError):  # garbage, or the client has left, or its time is over
            if self.ending is None and loop.time() - began >= self._timeout:
                self.limits.refused("head_timeout", self.client(), HANDSHAKE)
        finally:
            if secure is None:
                connections.discard(self)
                self._transport.abort()
        if secure is not None:
            protocol.handshake = self  # type: ignore[attr-defined]  # until its server takes its place
            protocol.connection_made(secure)

    def _hand_over(self) -> None:
        tls: Any = self._transport.get_protocol()
        while self._early and hasattr(tls, "get_buffer"):
            room = tls.get_buffer(len(self._early))
            size = min(len(room), len(self._early))
            room[:size] = self._early[:size]
            self._early = self._early[size:]
            tls.buffer_updated(size)

    def abort(self) -> None:
        """Close the descriptor."""
        self._transport.abort()

    def socket(self) -> Any:
        """The socket."""
        return self._transport.get_extra_info("socket")
