"""hypercorn's HTTP/2 protocol, changed so that a drain does not lose a response's end. Not for HTTP/1."""

from __future__ import annotations

import hypercorn.protocol
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.h2 import H2Protocol

_LOOK = 0.01  # seconds between two looks


class DrainingH2Protocol(H2Protocol):
    """Sends GOAWAY after the last stream's END_STREAM.

    By itself hypercorn 0.18 may send GOAWAY first: then h2 refuses END_STREAM, and the response looks cut.
    """

    draining = False  # set on the class, when the drain begins

    async def stream_send(self, event: Event) -> None:
        """As hypercorn's, but in a drain a stream counts as closed only when its end has been sent."""
        last = isinstance(event, StreamClosed) and (self.draining or self.context.terminated.is_set())
        if last:
            while event.stream_id in self.stream_buffers and not self.closed:
                await self.context.sleep(_LOOK)
        await super().stream_send(event)
        if last and self.draining:
            await self.leave()

    async def leave(self) -> None:
        """If no stream is left, send GOAWAY with the last one's number: later ones may be sent elsewhere."""
        if self.idle and not self.closed and not self.context.terminated.is_set():
            self.connection.close_connection()
            await self._flush()


def install() -> None:
    """Replace hypercorn's protocol by this one, in this process."""
    vars(hypercorn.protocol)["H2Protocol"] = DrainingH2Protocol
