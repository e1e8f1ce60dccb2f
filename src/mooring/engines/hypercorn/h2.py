"""hypercorn's HTTP/2 protocol, with limits, and changed so that a drain does not lose a response's end.

Not for HTTP/1. What costs a client nothing and this process something is paid from a purse that fills with
time and with each answer: all frames but those of a request and of its body, and a stream that is reset. When
it is empty, the connection ends with GOAWAY and ENHANCE_YOUR_CALM. Continuations, streams and header lists
are bounded by h2. After some frames others have their turn.
"""

from __future__ import annotations

import contextlib
from typing import Any

import hypercorn.protocol
from h2 import events as received
from h2 import exceptions
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.frame_buffer import FrameBuffer
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol import h2
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hyperframe.exceptions import HyperframeError

from mooring.engines.hypercorn.connections import of
from mooring.engines.hypercorn.limits import TURN, Limits
from mooring.engines.hypercorn.streams import LimitedHTTPStream

_LOOK = 0.01  # seconds between two looks
_PURSE, _PAY = 1000.0, 200.0  # how much a connection may spend at once, and each second
_COSTS = {  # besides the frame's own
    received.RemoteSettingsChanged: 4.0,
    received.SettingsAcknowledged: 4.0,
    received.StreamReset: 4.0,
}
_ANSWER, _SENT, _EACH = 2.0, 2.0, 1024  # earned by an answer, by a frame of a body, by so many bytes of it
_TABLE = 4096  # bytes: h2 searches all of the table for each field that it sends
_FLOODS = (exceptions.DenialOfServiceError, exceptions.TooManyStreamsError, exceptions.FlowControlError)
_NEXT = RawData(data=b"")


class _Frames(FrameBuffer):
    """h2's buffer, which gives TURN frames at most, and counts them."""

    left = TURN
    count = 0

    def __next__(self) -> Any:
        if self.left <= 0:
            raise StopIteration
        found = super().__next__()
        self.left -= 1
        self.count += 1
        return found


class DrainingH2Protocol(H2Protocol):
    """Sends GOAWAY after the last stream's END_STREAM.

    By itself hypercorn 0.18 may send GOAWAY first: then h2 refuses END_STREAM, and the response looks cut.
    """

    draining = False  # set on the class, when the drain begins
    limits: Limits  # set on the class
    wrong = ""  # what h2 has not taken of the client
    reason = "malformed"
    _left = False  # the client has sent GOAWAY
    _gone_away = False  # we have
    _handling = False  # h2 knows of requests that are not among the streams yet

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._purse, self._paid = _PURSE, 0.0
        self.streams = _Streams()
        # h2 has limits of its own until the client has confirmed ours
        self.connection.decoder.max_header_list_size = min(self.limits.max_head, 2**31 - 1)
        connection: Any = self.connection
        self._frames: Any = connection.incoming_buffer
        self._frames.__class__ = _Frames
        self._receive, connection.receive_data = connection.receive_data, self._received
        self._send_data_frame, connection.send_data = connection.send_data, self._sent
        self._go_away, connection.close_connection = connection.close_connection, self._goes_away

    def _received(self, data: bytes) -> Any:
        if self._gone_away:
            return []  # what a client has sent before it knew is no error; it asks elsewhere again
        self._frames.left = TURN
        try:
            return self._receive(data)
        except ProtocolError as error:
            self.wrong = f"{type(error).__name__}: {error}"
            if isinstance(error, _FLOODS) or "continuation" in self.wrong:
                self.reason = "http2"
            raise

    def _goes_away(self, error_code: int = ErrorCodes.NO_ERROR, **options: Any) -> None:
        """As h2's, which then sends no more of an answer: so after the last one, if no client is refused.

        hypercorn asks for it in the middle of the request that is one too many (keep_alive_max_requests).
        """
        if (self.idle and not self._handling) or of(self).ending is not None:
            self._gone_away = True
            self._go_away(error_code, **options)
        else:
            self.draining = True

    def _sent(self, stream: int, data: bytes) -> None:
        self._purse += _SENT + len(data) // _EACH
        self._send_data_frame(stream, data)

    async def initiate(self, headers: Any = None, settings: bytes | None = None) -> None:
        """As hypercorn's, unless what an upgrade says of itself can't be read."""
        try:
            await super().initiate(headers, settings)
        except (ProtocolError, HyperframeError, ValueError) as error:
            self.wrong = f"{type(error).__name__}: {error}"
            await of(self).refuse("malformed", 0, f"HTTP2-Settings: {error}")

    async def handle(self, event: Any) -> None:
        """As hypercorn's, but after TURN frames others have their turn, and no application waits for a client
        that has left to take more.
        """
        if type(event) is Closed:
            self.closed = True
            for buffer in list(self.stream_buffers.values()):
                await buffer.close()
        await super().handle(event)
        while self._frames.left <= 0 and type(event) is RawData:
            await self.context.sleep(0)
            if self.closed or self._left or self.wrong or of(self).ending is not None:
                return
            await super().handle(_NEXT)

    async def _handle_events(self, events: list[Any]) -> None:
        """As hypercorn's, if the client can pay for them."""
        cost = self._cost(events)
        if cost and not self._pay(cost):
            await of(self).refuse("http2", 0, "a flood of frames")
            return
        self._handling = True
        try:
            await super()._handle_events(events)
        finally:
            self._handling = False
        if self.draining and self.idle and not self._gone_away:
            self.task_group.spawn(self._leave_soon)
        if cost and self.idle and any(type(event) is received.StreamReset for event in events):
            # by itself hypercorn would wait for ever for the next request
            await self.send(Updated(idle=True))

    def _cost(self, events: list[Any]) -> float:
        cost, self._frames.count = float(self._frames.count), 0
        for number, event in enumerate(events):
            kind = type(event)
            if kind is received.RequestReceived or kind is received.TrailersReceived:
                cost -= 1
            elif kind is received.DataReceived:
                # data that ends its stream may be empty
                cost -= bool(event.data) or event.stream_ended is not None
            elif kind is received.ConnectionTerminated:
                del events[number + 1 :]
                self._left = True
                break
            elif kind in _COSTS:
                cost += _COSTS[kind]
                if (
                    kind is received.RemoteSettingsChanged
                    and self.connection.encoder.header_table_size > _TABLE
                ):
                    self.connection.encoder.header_table_size = _TABLE
        return cost

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
        elif not _is_whole(request.headers):
            self.keep_alive_requests += 1
            await self.refuse(request.stream_id, "malformed", 400, "no path, or one beyond ASCII")
        else:
            await super()._create_stream(request)

    async def refuse(self, number: int, reason: str, status: int = 0, detail: str = "") -> None:
        """End one stream because of its client: with `status` if its response has not begun."""
        self.limits.refused(reason, self.client, detail)
        stream: Any = self.streams.get(number)
        with contextlib.suppress(ProtocolError):
            begun = not status or getattr(stream, "response", None) is not None
            if not begun:
                self.connection.send_headers(number, [(b":status", b"%d" % status)], end_stream=True)
                await self._flush()
                await self.context.sleep(_LOOK)  # curl, in an upload, drops an answer that a reset comes with
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
        """As hypercorn's, but in a drain a stream counts as closed only when its end has been sent.

        One that is answered before its request is whole is reset then (RFC 9113, 8.1): nobody reads the rest.
        """
        if type(event) is not StreamClosed:
            await super().stream_send(event)
            return
        number = event.stream_id
        self._purse += _ANSWER
        stream: Any = self.streams.get(number)
        unread = isinstance(stream, LimitedHTTPStream) and not stream.ended
        if unread or self.draining or self.context.terminated.is_set():
            while number in self.stream_buffers and not self.closed:
                await self.context.sleep(_LOOK)
        await super().stream_send(event)
        if unread and not self.closed:
            with contextlib.suppress(ProtocolError):  # its end has come meanwhile
                self.connection.reset_stream(number, ErrorCodes.NO_ERROR)
                await self._flush()
        if self.draining:
            await self.leave()

    async def _close_stream(self, stream_id: int) -> None:
        stream: Any = self.streams.get(stream_id)
        await super()._close_stream(stream_id)
        if stream is not None:
            stream.send = self._unheard

    async def _unheard(self, event: Event) -> None:
        """What an application still sends. Without a pause those of many streams would hold up all others."""
        if type(event) is StreamClosed:
            await self.stream_send(event)
        else:
            await self.context.sleep(0)

    async def _leave_soon(self) -> None:
        while self.idle and self.stream_buffers and not self.closed:
            await self.context.sleep(_LOOK)
        await self.leave()

    async def leave(self) -> None:
        """If no stream is left, send GOAWAY with the last one's number: later ones may be sent elsewhere."""
        if self._handling or self._gone_away:
            return
        if self.idle and not self.closed and not self.context.terminated.is_set():
            self.connection.close_connection()
            await self._flush()


def _is_whole(headers: Any) -> bool:
    """Whether there is what hypercorn takes for granted: a method and a path, of ASCII."""
    found = False
    for name, value in headers:
        if name == b":path":
            found = value.isascii()
        elif name == b":method" and not value.isascii():
            return False
        if name[:1] != b":":
            break
    return found


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

    popped, seen, seen_at = 0, -1, 0.0  # -1: the watch has not looked yet

    async def pop(self, max_length: int) -> bytes:
        data = await super().pop(max_length)
        self.popped += len(data)
        return data


def install(limits: Limits) -> None:
    """Replace hypercorn's protocol by this one, in this process."""
    DrainingH2Protocol.limits = limits
    vars(h2)["StreamBuffer"] = _CountedBuffer
    vars(hypercorn.protocol)["H2Protocol"] = DrainingH2Protocol
