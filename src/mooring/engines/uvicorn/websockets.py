"""uvicorn's WebSocket protocol without its own access log, and with a close code that reaches the client.

By itself uvicorn 0.54 closes the connection right after its close frame (1012, and 1009 for a message that is
too large). Data that the client still sends then resets it, and the client may never read the frame.
"""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig

from mooring.engines.common.websockets import LINGER, TOO_BIG, Silence, refused

_LOG = logging.getLogger("uvicorn.error.websockets")


class QuietWebSockets(WebSocketsSansIOProtocol):
    """The protocol that uvicorn's `auto` chooses today; the others are deprecated or slower."""

    restarting = False
    refusing: Silence | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _LOG
        # The library limits the compressed bytes too, which can be more, and one for an empty last part.
        size = self.config.ws_max_size
        self.conn.max_message_size = size + size // 1000 + 1024

    @property
    def open(self) -> bool:
        """Whether the WebSocket is accepted and not being closed."""
        return self.handshake_complete and not (self.close_sent or self.transport.is_closing())

    def restart(self, patience: float) -> None:
        """Close it with 1012 (service restart); a client that doesn't answer has `patience` seconds."""
        if not self.open:
            return
        self.restarting = True
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1012})
        self.conn.send_close(1012)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(patience, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; what comes of a message that was refused is dropped."""
        if self.refusing is not None:
            self.refusing.heard()
            return
        super().data_received(data)

    def handle_parser_exception(self) -> None:
        """As uvicorn's; but a message that is too large is logged, and its client may send the rest of it."""
        if self.close_sent or not isinstance(self.conn.parser_exc, PayloadTooBig):
            super().handle_parser_exception()
        else:
            self.refuse()

    def send_receive_event_to_app(self) -> None:
        """As uvicorn's, for a message that is not too large."""
        if sum(map(len, self.frames)) <= self.config.ws_max_size or self.close_sent:
            super().send_receive_event_to_app()
            return
        self.frames = []
        self.conn.send_close(TOO_BIG)
        self.refuse()

    def refuse(self) -> None:
        """Send the close frame, and drop what the client sends until it is silent."""
        refused(_LOG, self.config.ws_max_size)
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": TOO_BIG, "reason": ""})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.refusing = Silence(self.transport.close)
        self.close_timer = self.loop.call_later(LINGER, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        if self.refusing is not None:
            self.refusing.cancel()
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        """As uvicorn's; after `restart` it raises ClientDisconnected, as after a disconnect."""
        if self.restarting or self.refusing is not None:
            raise ClientDisconnected
        await super().send(message)


def quiet() -> None:
    """Log only warnings and errors of WebSockets. Call it after the level of uvicorn's log is set."""
    _LOG.setLevel(max(logging.getLogger("uvicorn.error").getEffectiveLevel(), logging.WARNING))
