"""hypercorn's WebSocket, changed to pass on the client's close code, and with limits on what it takes.

For the drain: engines/common/websockets.py.

By itself hypercorn 0.18 gives the application 1006 (abnormal) for every close by the client, takes any number
of fragments, goes on reading after a message that is too large, and waits for ever for a silent client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.events import CloseConnection, Message, Ping

from mooring.engines.hypercorn.connections import of
from mooring.engines.hypercorn.limits import FRAGMENTS


class _RefusedMessageError(Exception):
    """With the close code and what is wrong."""


class _LimitedBuffer(WebsocketBuffer):
    """A message as it comes: bounded in its fragments too."""

    fragments = 0

    def extend(self, event: Message[Any]) -> None:
        self.fragments += event.frame_finished  # a frame comes in parts, as the network brings it
        if self.fragments > FRAGMENTS:
            raise _RefusedMessageError(1008, f"a message of more than {FRAGMENTS} fragments")
        try:
            super().extend(event)
        except FrameTooLargeError:
            raise _RefusedMessageError(1009, f"a message of more than {self.max_length} bytes") from None

    def clear(self) -> None:
        self.fragments = 0
        super().clear()


class CodedWSStream(WSStream):
    """Gives the application the code and reason of the client's close frame."""

    close: CloseConnection | None = None
    heard = False  # since the watch's last look; set by any frame
    heard_at: float | None = None
    asked_at: float | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.buffer = _LimitedBuffer(self.config.websocket_max_message_size)

    async def handle(self, event: Event) -> None:
        """As hypercorn's, but the disconnect after a close frame carries its code and reason."""
        if self.close is None or self.closed or not isinstance(event, StreamClosed):
            await super().handle(event)
            return
        self.closed = True
        if self.app_put is not None:
            code, reason = int(self.close.code), self.close.reason or ""
            await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def _handle_events(self) -> None:
        try:
            await super()._handle_events()
        except _RefusedMessageError as error:
            await self.refuse(*error.args)

    async def refuse(self, code: int, why: str) -> None:
        """Close this WebSocket because of its client."""
        if self.closed:
            return
        self.close = CloseConnection(code=code, reason=why)
        await self._send_wsproto_event(self.close)
        protocol: Any = self.send.__self__  # type: ignore[attr-defined]
        if isinstance(protocol, h2.H2Protocol):
            await protocol.refuse(self.stream_id, "websocket", 0, why)  # type: ignore[attr-defined]
        else:
            await of(protocol).refuse("websocket", 0, why)

    async def ask(self) -> None:
        """Send a ping: a client that is there answers."""
        await self._send_wsproto_event(Ping())

    async def _accept(self, message: Any) -> None:
        await super()._accept(message)
        connection: Any = self.connection
        events = connection.events

        def noted() -> Iterator[Any]:
            self.heard = True
            for event in events():
                if isinstance(event, CloseConnection):
                    self.close = event
                yield event

        connection.events = noted


def install() -> None:
    """Replace hypercorn's class by this one, in this process."""
    for module in (h11, h2):
        vars(module)["WSStream"] = CodedWSStream
