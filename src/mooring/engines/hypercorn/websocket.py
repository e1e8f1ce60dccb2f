"""hypercorn's WebSocket, changed to pass on the client's close code, and with limits on what it takes.

For the drain: engines/common/websockets.py.

By itself hypercorn 0.18 gives the application 1006 (abnormal) for every close by the client, limits the
characters of a text, takes any number of fragments, goes on reading after a message that is too large, fails
at handshakes that it can't read, keeps the connections of those that it refuses, and waits for ever for a
silent client.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Body, Data, Event, Request, StreamClosed
from hypercorn.protocol.ws_stream import (
    ASGIWebsocketState,
    FrameTooLargeError,
    Handshake,
    WebsocketBuffer,
    WSStream,
)
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import PerMessageDeflate
from wsproto.handshake import server_extensions_handshake
from wsproto.utilities import RemoteProtocolError

from mooring.engines.common.websockets import FRAGMENTS, POLICY, TOO_BIG, refused
from mooring.engines.hypercorn.connections import of
from mooring.engines.hypercorn.limits import TURN

_PIECE, _DEFLATED = 2**14, 2**12  # bytes given to wsproto at once; it makes a thousand times as many of these
_DELIVERY, _LOOK = 1.0, 0.01  # seconds for a close frame to leave a stream of HTTP/2, and between two looks
_LOG = logging.getLogger("hypercorn.error")


class _RefusedMessageError(Exception):
    """With the close code, what is wrong, and the reason that is counted."""


class Buffer(WebsocketBuffer):
    """The parts of a message: at most `max_length` bytes, in at most FRAGMENTS."""

    size = fragments = 0
    full = False  # from now on all parts are refused
    raised = False  # since it was last set to False

    def extend(self, event: Message[Any]) -> None:
        """Add a part. Raises FrameTooLargeError, from then on for each part."""
        self.fragments += event.frame_finished  # a frame comes in parts, as the network brings it
        if self.fragments > FRAGMENTS:
            raise _RefusedMessageError(POLICY, f"a message of more than {FRAGMENTS} fragments", "websocket")
        data: Any = event.data
        self.size += len(data) if not isinstance(data, str) or data.isascii() else len(data.encode())
        if self.size > self.max_length or self.full:
            self.full = self.raised = True
            super().clear()
            raise FrameTooLargeError
        super().extend(event)

    def clear(self) -> None:
        """The message is complete."""
        self.size = self.fragments = 0
        super().clear()


class CodedWSStream(WSStream):
    """Gives the application the code and reason of the client's close frame."""

    close: CloseConnection | None = None
    buffer: Buffer
    _refused = False
    _waits = False  # events, until others have had their turn
    heard = False  # since the watch's last look; set by any frame
    heard_at: float | None = None
    asked_at: float | None = None

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.buffer = Buffer(self.config.websocket_max_message_size)

    async def handle(self, event: Event) -> None:
        """As hypercorn's, but the disconnect after a close frame carries its code and reason."""
        if self._refused and not isinstance(event, StreamClosed):
            return
        if isinstance(event, (Body, Data)):
            await self._take(event.data)
        elif isinstance(event, Request):
            await self._begin(event)
        elif self.close is None or self.closed or not isinstance(event, StreamClosed):
            await super().handle(event)
        else:
            self.closed = True
            if self.app_put is not None:
                code, reason = int(self.close.code), self.close.reason or ""
                await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def app_send(self, message: Any) -> None:
        """As hypercorn's, but nothing is sent to a client that is refused."""
        if not self._refused:
            await super().app_send(message)

    async def _begin(self, event: Request) -> None:
        wrong = _unreadable(event.headers)
        if wrong:
            self.handshake = Handshake([], event.http_version)
            self.scope, self.start_time = {}, 0.0  # type: ignore[typeddict-item]  # nothing reads them
            await self._reject(wrong, answered=False)
            return
        await super().handle(event)
        if self.closed:
            await self._reject("no handshake of a WebSocket", answered=True)

    async def _reject(self, why: str, *, answered: bool) -> None:
        """Answer 400; `answered`: hypercorn has tried to, which fails on HTTP/2."""
        self._refused, protocol = True, self._protocol()
        if isinstance(protocol, h2.H2Protocol):
            await protocol.refuse(self.stream_id, "malformed", 400, why)  # type: ignore[attr-defined]
            return
        if not answered:
            await self._send_error_response(400)
        await of(protocol).refuse("malformed", 0, why)

    def _protocol(self) -> Any:
        return self.send.__self__  # type: ignore[attr-defined]

    async def _take(self, data: bytes) -> None:
        if not self.handshake.accepted:
            if self.state is ASGIWebsocketState.HANDSHAKE and not self.closed:
                await self._reject("data before the answer to the handshake", answered=False)
            return
        deflated = self.handshake.extensions is not None
        piece = _DEFLATED if deflated else _PIECE
        for first in range(0, len(data), piece):
            if self.closed or self._refused:
                return
            self.connection.receive_data(data[first : first + piece])
            await self._handle_events()
            if deflated:
                await self.context.sleep(0)

    async def _handle_events(self) -> None:
        try:
            await super()._handle_events()
            while self._waits and not (self.closed or self._refused):
                self._waits = False
                await self.context.sleep(0)
                await super()._handle_events()
        except _RefusedMessageError as error:
            await self.refuse(*error.args)
        if self.buffer.full:
            await self._end("websocket", f"a message of more than {self.buffer.max_length} bytes")

    async def refuse(self, code: int, why: str, reason: str = "websocket") -> None:
        """Close this WebSocket because of its client."""
        if self.closed or self._refused:
            return
        self._refused, self.close = True, CloseConnection(code=code, reason=why)
        await self._send_wsproto_event(self.close)
        self._refused = False
        await self._end(reason, why)

    async def _end(self, reason: str, why: str) -> None:
        """End the connection, or the stream, when what was sent has left."""
        if self._refused:
            return
        self._refused = True
        protocol = self._protocol()
        if isinstance(protocol, h2.H2Protocol):
            self.task_group.spawn(self._leave, protocol, reason, why)
        else:
            await of(protocol).refuse(reason, 0, why, body=self.buffer.full)

    async def _leave(self, protocol: Any, reason: str, why: str) -> None:
        until = self.context.time() + _DELIVERY
        while self.context.time() < until and getattr(
            protocol.stream_buffers.get(self.stream_id), "buffer", False
        ):
            await self.context.sleep(_LOOK)
        await protocol.refuse(self.stream_id, reason, 0, why)

    async def ask(self) -> None:
        """Send a ping: a client that is there answers."""
        await self._send_wsproto_event(Ping())

    async def _send_wsproto_event(self, event: Any) -> None:
        if self.buffer.full and isinstance(event, CloseConnection) and event.code == TOO_BIG:
            refused(_LOG, self.buffer.max_length)
        await super()._send_wsproto_event(event)

    async def _accept(self, message: Any) -> None:
        await super()._accept(message)
        connection: Any = self.connection
        events = connection.events

        def noted() -> Iterator[Any]:
            self.heard, left = True, TURN
            for event in events():
                if isinstance(event, CloseConnection):
                    if connection.state is ConnectionState.OPEN:  # wsproto has not understood a frame
                        raise _RefusedMessageError(int(event.code), event.reason or "", "malformed")
                    self.close = event
                yield event
                left -= 1
                if not left:
                    self._waits = True
                    return

        connection.events = noted


def _unreadable(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What of a handshake can't be read, "" for nothing."""
    for given, value in headers:
        name = given.lower()
        if name.startswith(b"sec-websocket-") or name in (b"upgrade", b"connection"):
            if not value.isascii():
                return f"{name.decode('latin-1')} beyond ASCII"
            if name == b"sec-websocket-extensions":
                offers = [each.strip() for each in value.decode().split(",")]
                try:
                    server_extensions_handshake(offers, [PerMessageDeflate()])
                except (ValueError, IndexError, RemoteProtocolError) as error:
                    return f"sec-websocket-extensions: {error}"
    return ""


def install() -> None:
    """Replace hypercorn's class by this one, in this process."""
    for module in (h11, h2):
        vars(module)["WSStream"] = CodedWSStream
