"""uvicorn's WebSocket protocol without its own access log, and with a close that clients get to see.

By itself uvicorn 0.54 closes the connection right behind its 1012: what the client still sends then resets
it, and the client may never read why.
"""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_LOG = logging.getLogger("uvicorn.error.websockets")


class QuietWebSockets(WebSocketsSansIOProtocol):
    """What uvicorn's `auto` takes today; the others are deprecated or slower."""

    restarting = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _LOG

    @property
    def open(self) -> bool:
        """Whether it is accepted, and nobody closes it."""
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
        """As uvicorn's; after a restart as after a disconnect."""
        if self.restarting:
            raise ClientDisconnected
        await super().send(message)


def quiet() -> None:
    """Let only warnings and errors through; to be called once the level of uvicorn's log is set."""
    _LOG.setLevel(max(logging.getLogger("uvicorn.error").getEffectiveLevel(), logging.WARNING))
