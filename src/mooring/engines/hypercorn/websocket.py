"""hypercorn's WebSocket, changed to pass on the client's close code, and with limits on what it takes.

For the drain: engines/common/websockets.py.

By itself hypercorn 0.18 gives the application 1006 (abnormal) for every close by the client, limits the
characters of a text, takes any number of fragments, goes on reading after a message that is too large, and
waits for ever for a silent client.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.events import CloseConnection, Message, Ping

from mooring.engines.common.websockets import FRAGMENTS, POLICY, TOO_BIG, refused
from mooring.engines.hypercorn.connections import of

_LOG = logging.getLogger("hypercorn.error")


class _RefusedMessageError(Exception):
    """With the close code and what is wrong."""


class Buffer(WebsocketBuffer):
    """The parts of a message: at most `max_length` bytes, in at most FRAGMENTS."""

    size = fragments = 0
    full = False  # from now on all parts are refused
    raised = False  # since it was last set to False

    def extend(self, event: Message[Any]) -> None:
        """Add a part. Raises FrameTooLargeError, from then on for each part."""
        self.fragments += event.frame_finished  # a frame comes in parts, as the network brings it
        if self.fragments > FRAGMENTS:
            raise _RefusedMessageError(POLICY, f"a message of more than {FRAGMENTS} fragments")
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
    heard = False  # since the watch's last look; set by any frame
    heard_at: float | None = None
    asked_at: float | None = None

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.buffer = Buffer(self.config.websocket_max_message_size)

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
            while self.buffer.raised:  # hypercorn's loop ends there: the client's close may be behind it
                self.buffer.raised = False
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

    async def _send_wsproto_event(self, event: Any) -> None:
        if self.buffer.full and isinstance(event, CloseConnection) and event.code == TOO_BIG:
            refused(_LOG, self.buffer.max_length)
        await super()._send_wsproto_event(event)

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
