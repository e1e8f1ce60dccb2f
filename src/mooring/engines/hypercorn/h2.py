"""hypercorn's HTTP/2 protocol, with limits, and changed so that a drain does not lose a response's end.

Not for HTTP/1. What costs a client nothing and this process something is paid from a purse that fills with
time: a stream that is reset before its answer, a ping, settings, an empty frame. When it is empty, the
connection ends with GOAWAY and ENHANCE_YOUR_CALM. Continuations, streams and header lists are bounded by h2.
"""

from __future__ import annotations

import contextlib
from typing import Any

import hypercorn.protocol
from h2 import events as received
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.events import Updated
from hypercorn.protocol import h2
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer

from mooring.engines.hypercorn.connections import of
from mooring.engines.hypercorn.limits import Limits

_LOOK = 0.01  # seconds between two looks
_PURSE, _PAY = 1000.0, 200.0  # how much a connection may spend at once, and each second
_RESET = 5.0
_COSTS = {
    received.PingReceived: 1.0,
    received.PingAckReceived: 1.0,
    received.PriorityUpdated: 1.0,
    received.UnknownFrameReceived: 1.0,
    received.RemoteSettingsChanged: 5.0,
    received.SettingsAcknowledged: 5.0,
    received.StreamReset: _RESET,
}


class DrainingH2Protocol(H2Protocol):
    """Sends GOAWAY after the last stream's END_STREAM.

    By itself hypercorn 0.18 may send GOAWAY first: then h2 refuses END_STREAM, and the response looks cut.
    """

    draining = False  # set on the class, when the drain begins
    limits: Limits  # set on the class
    wrong = ""  # what h2 has not taken of the client

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._purse, self._paid = _PURSE, 0.0
        self.streams = _Streams()
        # h2 has limits of its own until the client has confirmed ours
        self.connection.decoder.max_header_list_size = min(self.limits.max_head, 2**31 - 1)
        connection: Any = self.connection
        self._receive, connection.receive_data = connection.receive_data, self._received

    def _received(self, data: bytes) -> Any:
        try:
            return self._receive(data)
        except ProtocolError as error:
            self.wrong = f"{type(error).__name__}: {error}"
            raise

    async def _handle_events(self, events: list[Any]) -> None:
        """As hypercorn's, if the client can pay for them."""
        cost = self._cost(events)
        if cost and not self._pay(cost):
            await of(self).refuse("http2", 0, "a flood of frames")
            return
        await super()._handle_events(events)
        if cost and self.idle and any(type(event) is received.StreamReset for event in events):
            # by itself hypercorn would wait for ever for the next request
            await self.send(Updated(idle=True))

    def _cost(self, events: list[Any]) -> float:
        cost, priorities = 0.0, 0
        for event in events:
            kind = type(event)
            if kind is received.DataReceived:
                # data that ends its stream may be empty
                cost += not event.flow_controlled_length and event.stream_ended is None
            elif kind is received.RequestReceived:
                priorities += event.priority_updated is not None  # no frame of its own
            elif kind is received.StreamReset:
                cost += _RESET
            else:
                cost += _COSTS.get(kind, 0.0)
        return cost - priorities

    def _pay(self, cost: float) -> bool:
        now = self.context.time()
        self._purse = min(_PURSE, self._purse + (now - self._paid) * _PAY) - cost
        self._paid = now
        return self._purse >= 0

    async def _priority_updated(self, event: Any) -> None:
        """Nothing: RFC 9113, 5.3, has no priorities any more, and the tree of them has no bound."""

    async def _create_stream(self, request: Any) -> None:
        count = len(request.headers)
        if count > self.limits.max_fields + 4:  # the pseudo fields stand for HTTP/1's first line
            self.keep_alive_requests += 1
            await self.refuse(request.stream_id, "head_fields", 431, f"{count} fields")
            return
        await super()._create_stream(request)

    async def refuse(self, number: int, reason: str, status: int = 0, detail: str = "") -> None:
        """End one stream because of its client: with `status` if its response has not begun."""
        self.limits.refused(reason, self.client, detail)
        stream: Any = self.streams.get(number)
        with contextlib.suppress(ProtocolError):
            begun = not status or getattr(stream, "response", None) is not None
            if not begun:
                self.connection.send_headers(number, [(b":status", b"%d" % status)], end_stream=True)
            if begun or not getattr(stream, "ended", False):
                self.connection.reset_stream(number, ErrorCodes.CANCEL if begun else ErrorCodes.NO_ERROR)
        await self._flush()
        buffer = self.stream_buffers.get(number)
        if buffer is not None:
            await buffer.close()
        if number in self.streams:
            await self._close_stream(number)
        await self._window_updated(number)
        await self.send(Updated(idle=self.idle))

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


class _Streams(dict[int, Any]):
    """hypercorn's open streams. Data for one that has been answered already goes nowhere."""

    def __missing__(self, number: int) -> Any:
        return _Gone


class _Gone:
    @staticmethod
    async def handle(event: object) -> None:
        return


class _CountedBuffer(StreamBuffer):
    """What a stream has to send, with a count of what it has sent, for the watch."""

    popped = seen = 0
    seen_at = 0.0

    async def pop(self, max_length: int) -> bytes:
        data = await super().pop(max_length)
        self.popped += len(data)
        return data


def install(limits: Limits) -> None:
    """Replace hypercorn's protocol by this one, in this process."""
    DrainingH2Protocol.limits = limits
    vars(h2)["StreamBuffer"] = _CountedBuffer
    vars(hypercorn.protocol)["H2Protocol"] = DrainingH2Protocol
