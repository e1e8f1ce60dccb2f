"""uvicorn's WebSocket protocol without its own access log, and with a close code that reaches the client.

By itself uvicorn 0.54 closes the connection right after its close frame (1012). Data that the client still
sends then resets the connection, and the client may never read the frame.
"""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_LOG = logging.getLogger("uvicorn.error.websockets")


class QuietWebSockets(WebSocketsSansIOProtocol):
    """The protocol that uvicorn's `auto` chooses today; the others are deprecated or slower."""

    restarting = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _LOG

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

    async def send(self, message: Any) -> None:
        """As uvicorn's; after `restart` it raises ClientDisconnected, as after a disconnect."""
        if self.restarting:
            raise ClientDisconnected
        await super().send(message)


def quiet() -> None:
    """Log only warnings and errors of WebSockets. Call it after the level of uvicorn's log is set."""
    _LOG.setLevel(max(logging.getLogger("uvicorn.error").getEffectiveLevel(), logging.WARNING))
