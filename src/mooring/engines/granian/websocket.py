"""One WebSocket on granian, and what else is in flight in this process.

Where granian 2.8 differs from the other engines: a close waits as long as a `receive()` is pending, sending
to a client that has left raises no OSError, and `receive()` does not report the server's own close.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from mooring.engines.common.connections import Connections, borrow
from mooring.engines.common.gate import Gate
from mooring.engines.common.websockets import delays

GOING_AWAY = 1012  # service restart: https://www.iana.org/assignments/websocket
_PAUSE = 0.02  # seconds between two looks for new WebSockets
_LINGER = 1.0  # seconds that a client has to send its own close


class Live:
    """What is in flight in this process; `gate` is set when the drain begins."""

    def __init__(self) -> None:
        self.active = 0
        self.gate: Gate | None = None
        self.websockets: set[WebSocket] = set()

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        while self.active:
            await asyncio.sleep(0.01)

    async def close_websockets(self, connections: Connections, left: float) -> None:
        """Close every WebSocket with 1012, new ones too, until cancelled; `left`: the drain's seconds."""
        while True:
            found = [each for each in self.websockets if each.accepted and each.code is None]
            if found:
                fds = connections.peers()
                after = zip(delays(len(found), left), found, strict=True)
                closing = (_close_in(delay, each, fds.get(each.client)) for delay, each in after)
                await asyncio.gather(*closing, return_exceptions=True)
            await asyncio.sleep(_PAUSE)


async def _close_in(delay: float, websocket: WebSocket, fd: int | None) -> None:
    """Close a WebSocket after `delay` seconds, then read on for a moment.

    Granian closes the connection at once. Unread data would make that a reset, which can reach the client
    before the close frame.
    """
    await asyncio.sleep(delay)
    kept = borrow(fd, websocket.client) if fd is not None else None
    await websocket.close(GOING_AWAY)
    if kept is None:
        return
    loop = asyncio.get_running_loop()
    with kept, contextlib.suppress(OSError, TimeoutError):
        kept.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_LINGER):
            while await loop.sock_recv(kept, 65536):
                pass


class ClientLeftError(OSError):
    """Raised by send() after the end, as the ASGI specification requires. The handler ignores it."""


class WebSocket:
    """Granian's WebSocket protocol object, as the application sees it; `code` is set once it is closed."""

    def __init__(self, proto: Any, client: tuple[str, int] | None) -> None:
        self.client = client
        self._proto = proto
        self._pending: Any = None
        self.accepted = False
        self._closing: asyncio.Task[None] | None = None
        self.code: int | None = None

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        if self.code is not None:
            return await self._disconnect()
        self._pending = self._proto.receive()
        try:
            message: dict[str, Any] = await self._pending
        except asyncio.CancelledError:
            if not self._closed():
                raise
            return await self._disconnect()
        finally:
            self._pending = None
        if message["type"] == "websocket.disconnect":
            self.code = message["code"]
            message.setdefault("reason", "")
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message. Raises OSError if the client has left."""
        if message["type"] == "websocket.close":
            await self.close(message.get("code") or 1000, message.get("reason") or "")
            return
        if self.code is not None:
            await self._disconnect()
            raise ClientLeftError(f"the WebSocket is closed ({self.code})")
        try:
            await self._proto.send(message)
        except RuntimeError as error:
            if message["type"] == "websocket.send" and self.accepted:
                raise ClientLeftError("the client has left") from error
            raise
        if message["type"] == "websocket.accept":
            self.accepted = True

    async def close(self, code: int, reason: str = "") -> None:
        """Close from this side; a pending receive() gets the disconnect."""
        if self.code is not None:
            return
        self.code = code
        cancel = getattr(self._pending, "cancel", None)
        if cancel is not None:
            cancel()  # it holds the lock that the close waits for
        self._closing = asyncio.ensure_future(self._close(code, reason))
        await asyncio.shield(self._closing)

    async def _close(self, code: int, reason: str) -> None:
        await self._proto.send({"type": "websocket.close", "code": code, "reason": reason})

    def _closed(self) -> bool:
        return self.code is not None

    async def _disconnect(self) -> dict[str, Any]:
        """The disconnect message, once the close frame is sent.

        When the application returns, granian drops the connection.
        """
        if self._closing is not None:
            await asyncio.shield(self._closing)
        return {"type": "websocket.disconnect", "code": self.code, "reason": ""}
