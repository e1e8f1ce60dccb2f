# mypy: disable-error-code=no-untyped-call
"""Gunicorn's ASGI protocol takes turns with other connections, and tells what it refuses.

By itself it parses all that was read at once, 256 KiB: of chunks of a byte that holds the event loop for half
a second, and each of them is a message to the application, which receives them without a turn for others.
"""

from __future__ import annotations

from typing import Any

from mooring.engines import Serving
from mooring.engines.gunicorn.refused import reason_for

_PIECE = 8192  # bytes
_TURN = 0.005  # seconds of parsing after which others have their turn
_SMALL = 1024  # bytes: chunks below it are joined


class Turns:
    """The mixin for gunicorn's protocol."""

    mooring_serving: Serving  # set on the class
    mooring_own: Any  # gunicorn's own data_received, set on the class: super() costs more than the call
    mooring_rest = b""
    mooring_waits = False

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self.mooring_rest:
            self.mooring_rest += data
        elif len(data) <= _PIECE:
            self.mooring_own(data)
        else:
            self.mooring_parse(data)

    def mooring_parse(self, data: bytes) -> None:
        """Parse for a turn; the rest later, once the application has taken enough."""
        me: Any = self
        clock, at = me.worker.loop.time, 0
        end = clock() + _TURN
        while at < len(data) and not me._closed and me.transport is not None:
            self.mooring_own(data[at : at + _PIECE])
            at += _PIECE
            if at < len(data) and (clock() >= end or me._http1_buffered() > me._max_buffer_size):
                self.mooring_rest = data[at:]
                me._pause_reading()
                if me._http1_buffered() <= me._max_buffer_size:
                    self.mooring_again()
                return

    def mooring_again(self) -> None:
        """Have the rest parsed in a turn to come."""
        if not self.mooring_waits:
            self.mooring_waits = True
            me: Any = self
            me.worker.loop.call_soon(self.mooring_next)

    def mooring_next(self) -> None:
        """Parse the rest."""
        data, self.mooring_rest, self.mooring_waits = self.mooring_rest, b"", False
        me: Any = self
        if me._closed or me.transport is None:
            return
        self.mooring_parse(data)
        if not self.mooring_rest:
            me._maybe_resume_reading()

    def _resume_reading(self) -> None:
        if self.mooring_rest:
            self.mooring_again()
        else:
            super()._resume_reading()  # type: ignore[misc]

    def _send_error_response(self, status: int, message: str, *more: Any, **named: Any) -> None:
        me: Any = self
        if reason := reason_for(status, message):
            name = me.transport.get_extra_info("peername") if me.transport is not None else None
            self.mooring_serving.refused(reason, name or None, message)
        super()._send_error_response(status, message, *more, **named)  # type: ignore[misc]


def install() -> None:
    """Replace gunicorn's receiver of bodies by one that joins small chunks, in this process."""
    from gunicorn.asgi import protocol as module  # here: workers of other classes do without

    own: Any = module.BodyReceiver

    class Receiver(own):  # type: ignore[misc]
        __slots__ = ()

        def _pop_chunk(self) -> Any:
            chunks = self._chunks
            if len(chunks) > 1 and len(chunks[0]) < _SMALL:
                joined = b"".join(chunks)
                chunks.clear()
                chunks.append(joined)
            return super()._pop_chunk()

    module.BodyReceiver = Receiver  # type: ignore[misc]
