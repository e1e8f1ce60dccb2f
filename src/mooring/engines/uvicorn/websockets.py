"""uvicorn's WebSocket protocol without its access log, with limits and with close codes that reach a client.

By itself uvicorn 0.54 closes the connection right after its close frame (1012, and 1009 for a message that is
too large). Data that the client still sends then resets it, and the client may never read the frame.
"""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame

from mooring.engines import Serving
from mooring.engines.common.linger import linger
from mooring.engines.common.refusal import MALFORMED
from mooring.engines.common.websockets import FRAGMENTS, LINGER, POLICY, TOO_BIG, Silence, refused
from mooring.engines.uvicorn import limits
from mooring.engines.uvicorn.limits import Limits

_LOG = logging.getLogger("uvicorn.error.websockets")
_SLICE, _TURN = 4 * 1024, 0.01  # bytes that are parsed at once; seconds after which others have their turn
_PROTOCOL, _UTF8 = 1002, 1007  # close codes: RFC 6455, 7.4.1


class QuietWebSockets(WebSocketsSansIOProtocol):
    """The protocol that uvicorn's `auto` chooses today; the others are deprecated or slower."""

    restarting = False
    limits = Limits()
    sending: object = None  # watch.py
    sending_since = 0.0
    lingering = False
    refusing: Silence | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _LOG
        self.unparsed = bytearray()
        self.stepping = False  # whether a step is scheduled
        # The library limits the compressed bytes too, which can be more, and one for an empty last part.
        size = self.config.ws_max_size
        self.conn.max_message_size = size + size // 1000 + 1024

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, a slice at a time: many small frames take long, and others have their turn between.

        What waits is bounded: meanwhile nothing more is read.
        """
        if self.refusing is not None:
            self.refusing.heard()
            return
        if len(data) <= _SLICE and not self.unparsed:
            super().data_received(data)
            return
        self.unparsed += data
        if not self.stepping:
            self._step()

    def _step(self) -> None:
        self.stepping = False
        end = self.loop.time() + _TURN
        while self.unparsed and not (self.read_paused or self._ends()):
            data = bytes(self.unparsed[:_SLICE])
            del self.unparsed[:_SLICE]
            super().data_received(data)
            if self.loop.time() >= end or not self.writable.is_set():
                break
        if self._ends():
            self.unparsed.clear()
        elif self.unparsed:
            if not self.read_paused and self.writable.is_set():
                self.transport.pause_reading()
                self.stepping = True
                self.loop.call_soon(self._step)
        elif not self.read_paused:
            self._go_on()

    def _ends(self) -> bool:
        return self.lingering or self.disconnected or self.refusing is not None

    def pause_writing(self) -> None:
        """As uvicorn's; and read nothing more of a client that takes nothing: its pings are answered."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """As uvicorn's; and go on."""
        super().resume_writing()
        if not (self.read_paused or self.transport.is_closing()):
            self._go_on()

    async def receive(self) -> Any:
        """As uvicorn's; what was read but not parsed comes before what is to be read."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._go_on()
        return message

    def _go_on(self) -> None:
        if not self.writable.is_set() or self.transport.is_closing():
            return
        if not self.unparsed:
            self.transport.resume_reading()
        elif not self.stepping:
            self.stepping = True
            self.loop.call_soon(self._step)

    def handle_cont(self, event: Frame) -> None:
        """As uvicorn's; a message in too many fragments is refused."""
        if self._ends():
            return
        if len(self.frames) >= FRAGMENTS:
            self.frames = []
            self.conn.fail(POLICY, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_events(self) -> None:
        """As uvicorn's, which leaves a head that the library can't read unanswered, and open for ever."""
        error = self.conn.handshake_exc
        if error is None or self.handshake_initiated:
            super().handle_events()
        elif not self._ends():
            self.limits.refused("malformed", self.client, str(error.__cause__ or error))
            self.lingering = self.handshake_complete = self.close_sent = True
            self.transport.write(MALFORMED.encode(self.default_headers))
            self.loop.call_soon(linger, self, self.transport)  # uvicorn is about to set the protocol

    def handle_parser_exception(self) -> None:
        """As uvicorn's; counted, and with a close that the client can read."""
        if not self.close_sent and isinstance(self.conn.parser_exc, PayloadTooBig):
            self.refuse()
            return
        closed = self.conn.close_sent
        if self._ends() or closed is None:
            return
        reason = "malformed" if closed.code in (_PROTOCOL, _UTF8) else "websocket"
        self.limits.refused(reason, self.client, f"{closed.code} {closed.reason}")
        self.lingering = True
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        linger(self, self.transport)

    def keepalive_timeout(self) -> None:
        """As uvicorn's, counted; but an application that reads slowly keeps the answer to a ping waiting, and
        a client that reads slowly may not have the ping yet: the send timeout is for that.
        """
        if self.read_paused or self.unparsed or self.sending is not None:
            self.pong_timer = self.loop.call_later(self.ping_timeout or 1.0, self.keepalive_timeout)
            return
        if not (self.close_sent or self.transport.is_closing()):
            self.limits.refused("websocket", self.client, "no answer to a ping")
        super().keepalive_timeout()
        self.lingering = True

    def idle_since(self) -> None:
        """Never closed for a new connection (limits.py)."""

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
            self._go_on()
        self.close_timer = self.loop.call_later(patience, self.transport.close)

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
        self.limits.refused("websocket", self.client, "a message that is too large")
        self.unparsed.clear()
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
        """As uvicorn's; once this side has ended it, it raises ClientDisconnected, as after a disconnect."""
        if self.restarting or self.lingering or self.refusing is not None:
            raise ClientDisconnected
        await super().send(message)


def quiet() -> None:
    """Log only warnings and errors of WebSockets. Call it after the level of uvicorn's log is set."""
    _LOG.setLevel(max(logging.getLogger("uvicorn.error").getEffectiveLevel(), logging.WARNING))


def limited(serving: Serving) -> type[QuietWebSockets]:
    """The protocol with a worker's limits."""
    return type(QuietWebSockets.__name__, (QuietWebSockets,), {"limits": limits.of(serving)})
