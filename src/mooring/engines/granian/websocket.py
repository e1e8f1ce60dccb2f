"""One WebSocket on granian, and what else is in flight in this process.

Where granian 2.8 differs from the other engines: a close waits as long as a `receive()` is pending, sending
to a client that has left raises no OSError, and `receive()` does not report the server's own close. It has no
limit on messages but its own: 16 MiB a frame, 64 MiB a message, and then no close frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from typing import Any

from mooring.engines import Serving
from mooring.engines.common.connections import Connections, borrow, unread
from mooring.engines.common.gate import Gate
from mooring.engines.common.refusal import DROPPED_BODY
from mooring.engines.common.watch import Busy
from mooring.engines.common.websockets import LINGER, SILENCE, TOO_BIG, delays, refused

GOING_AWAY = 1012  # service restart: https://www.iana.org/assignments/websocket
_PAUSE = 0.02  # seconds between two looks for new WebSockets
_LINGER = 1.0  # seconds that a client has to send its own close
_NO_CODE = 1005  # what granian tells of a close frame without a code, and of its own errors
_LOOKS = 3
_LOG = logging.getLogger("_granian")
_tasks = set[asyncio.Future[None]]()  # the event loop alone would not keep them


class Live:
    """What is in flight in this process; `gate` is set when the drain begins.

    `flying` has the client of each request and WebSocket, `uploads` the bodies that are read, `sendings` the
    answers that wait for a client.
    """

    def __init__(self, serving: Serving, loop: asyncio.AbstractEventLoop) -> None:
        settings = serving.plan.settings
        self.max_size, self.max_body, self.max_fields = (
            settings.websocket_max_size,
            settings.max_body,
            settings.max_fields,
        )
        self.connections, self.refused, self.loop = Connections(serving.doors.names), serving.refused, loop
        self.flying: dict[Any, tuple[str, int] | None] = {}
        self.uploads = set[Any]()
        self.sendings = set[Any]()
        self.multiplexed: set[Any] = set()
        self.answered: set[Any] | None = None
        self.gate: Gate | None = None
        self.websockets: set[WebSocket] = set()

    @property
    def active(self) -> int:
        """How many requests and WebSockets are in flight."""
        return len(self.flying)

    def busy(self) -> Busy:
        """What the watch asks for, in its thread."""
        flying = list(self.flying.items())
        return Busy(
            {client for _, client in flying},
            list(self.uploads),
            unnamed=[watcher for watcher, client in flying if client is None],
            readers=list(self.websockets),
            sendings=list(self.sendings),
        )

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
    await _read_out(kept, _LINGER, _LINGER)


async def _read_out(kept: socket.socket, silence: float, longest: float) -> None:
    """End the connection; read on until the client does, or is silent for so long. Seconds."""
    loop, left = asyncio.get_running_loop(), DROPPED_BODY
    with kept, contextlib.suppress(OSError, TimeoutError):
        kept.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(longest):
            while left > 0 and (data := await asyncio.wait_for(loop.sock_recv(kept, 1 << 18), silence)):
                left -= len(data)
                await asyncio.sleep(0)  # data that is there already is no turn for others


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it in a task of its own; nobody waits for it."""
    task = asyncio.ensure_future(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _is_larger(message: dict[str, Any], size: int) -> bool:
    """Whether a message has more than `size` bytes."""
    data = message.get("bytes")
    if data is not None:
        return len(data) > size
    text = message.get("text") or ""
    return len(text) * 4 > size and (len(text) > size or len(text.encode()) > size)


class ClientLeftError(OSError):
    """Raised by send() after the end, as the ASGI specification requires. The handler ignores it."""


class WebSocket:
    """Granian's WebSocket protocol object, as the application sees it; `code` is set once it is closed."""

    def __init__(self, proto: Any, client: tuple[str, int] | None, live: Live) -> None:
        self.client, self._live = client, live
        self._proto = proto
        self._pending: Any = None
        self._messages = 0
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
        self._messages += 1
        if message["type"] == "websocket.receive" and _is_larger(message, self._live.max_size):
            await self._refuse()
            return await self._disconnect()
        if message["type"] == "websocket.disconnect" and message["code"] == _NO_CODE and await self._is_cut():
            await self._refuse()
            return await self._disconnect()
        if message["type"] == "websocket.disconnect":
            self.code = message["code"]
            message.setdefault("reason", "")
        return message

    @property
    def messages(self) -> int:
        """How many have come; below 0: none is waited for."""
        return -1 if self._pending is None or not self.accepted else self._messages

    def excessive(self) -> None:
        """See engines/common/watch.py."""
        self._live.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self.code is None:
            _run(self._refuse())

    async def _is_cut(self) -> bool:
        """Whether granian has given up on a frame that is too large: what the client sends stays unread."""
        for _ in range(_LOOKS):
            fd = self._live.connections.peers().get(self.client)
            if fd is None:
                return False
            if unread(fd):
                return True
            await asyncio.sleep(_PAUSE)
        return False

    async def _refuse(self) -> None:
        """Close because a message is too large; a client that still sends it may go on for a while."""
        refused(_LOG, self._live.max_size)
        kept = borrow(self._live.connections.peers().get(self.client, -1), self.client)
        await self.close(TOO_BIG)
        if kept is not None:
            _run(_read_out(kept, SILENCE, LINGER))

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
