"""hypercorn's HTTP/2 protocol, without what loses the end of a response in a drain. Not for HTTP/1."""

from __future__ import annotations

import hypercorn.protocol
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.h2 import H2Protocol

_LOOK = 0.01  # seconds between two looks


class DrainingH2Protocol(H2Protocol):
    """Sends GOAWAY after the last stream's END_STREAM.

    As of hypercorn 0.18 GOAWAY may overtake it: h2 then refuses END_STREAM, and the response looks cut.
    """

    draining = False  # of the class, in a drain

    async def stream_send(self, event: Event) -> None:
        """As hypercorn's, but while stopping a stream counts as closed when its end has been sent."""
        last = isinstance(event, StreamClosed) and (self.draining or self.context.terminated.is_set())
        if last:
            while event.stream_id in self.stream_buffers and not self.closed:
                await self.context.sleep(_LOOK)
        await super().stream_send(event)
        if last and self.draining:
            await self.leave()

    async def leave(self) -> None:
        """Where no stream is left, GOAWAY with the last one's number: later ones may go elsewhere."""
        if self.idle and not self.closed and not self.context.terminated.is_set():
            self.connection.close_connection()
            await self._flush()


def install() -> None:
    """Put it in the place of hypercorn's, in this process."""
    vars(hypercorn.protocol)["H2Protocol"] = DrainingH2Protocol
