"""The limits on hypercorn's clients, and the watch that looks at all connections once a second.

It works on asyncio and trio: it says what to do, the worker does it. What happens in between is looked at
where the protocols do it anyway: http1.py, h2.py, streams.py, websocket.py.
"""

from __future__ import annotations

import array
import fcntl
import functools
import logging
import socket
import struct
import termios
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import h11
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState

from mooring.engines.common.full import Full
from mooring.engines.common.websockets import PING

if TYPE_CHECKING:
    from mooring.engines import Serving

LOOK = 1.0  # seconds between two looks
STEPS = 10  # begun at once, then others have their turn
TURN = 100  # frames of one client, then others have their turn

_LONGEST = 2.0  # seconds that count for a look: what a blocked loop did not read is not the client's fault
_GRACE, _RATE = 20.0, 240.0  # seconds, then bytes a second
_CONFIRM = 3.0  # seconds for a client's close_notify; RFC 8446, 6.1 does not require it
_CROWD = 64  # idle connections found at one search
_ACKED = struct.Struct("=120xQ")  # tcp_info's bytes_acked: linux/tcp.h

_LOG = logging.getLogger("hypercorn.error")

Step = Callable[[], Awaitable[object]]


class Limits:
    """The settings of one worker, with numbers for "no limit", and the clock of its watch."""

    def __init__(self, serving: Serving, ping: float | None = None) -> None:
        settings = serving.plan.settings
        self.refused = serving.refused
        self.head_timeout = settings.head_timeout or float("inf")
        self.body_timeout = settings.body_timeout or float("inf")
        self.send_timeout = settings.send_timeout or float("inf")
        self.max_head = settings.max_head or 2**62
        self.max_fields = settings.max_fields
        self.max_body = settings.max_body
        self.max_connections, self.full = serving.plan.max_connections, Full(serving)
        self.ping = ping or PING
        self.clock = 0.0


class Pace:
    """How fast a request's body comes while the application waits for it."""

    def __init__(self, now: float, body: int, limits: Limits) -> None:
        self._limit = limits.body_timeout
        # time that is paid for: bytes buy more, but nobody saves up more than the time without a byte
        self._credit = self._grace = min(_GRACE, self._limit)
        self._looked, self._body, self._silence = now, body, 0.0

    def check(self, now: float, body: int, *, waiting: bool) -> str:
        """What is wrong, "" for nothing. To be called at each look; times without `waiting` don't count."""
        passed, new = now - self._looked, body - self._body
        self._looked, self._body = now, body
        if not waiting:
            return ""
        self._silence = 0.0 if new else self._silence + passed
        self._credit = min(self._credit + new / _RATE - passed, max(self._grace, self._limit))
        if self._silence >= self._limit:
            return f"no byte of the body in {self._limit:g} s"
        return f"the body comes with less than {_RATE:g} bytes/s" if self._credit < 0 else ""


class Watch:
    """Call `look` every LOOK seconds."""

    def __init__(self, limits: Limits, connections: Iterable[Any]) -> None:
        self._limits, self._connections = limits, connections
        self._looked = time.monotonic()

    def look(self) -> list[Step]:
        """The steps for now, each to run in a task of its own."""
        limits, now = self._limits, time.monotonic()
        limits.clock += min(now - self._looked, _LONGEST)
        self._looked, steps = now, list[Step]()
        connections = tuple(self._connections)
        limits.full(len(connections))
        for each in connections:
            try:
                self._look_at(each, steps)
            except Exception:  # one connection does not end the watch of all
                _LOG.exception("a connection can't be watched")
        return steps

    def _look_at(self, each: Any, steps: list[Step]) -> None:
        limits = self._limits
        if each.began is None:
            each.began = limits.clock
        if not hasattr(each, "protocol"):
            if each.ending is None and each.is_late():
                each.ending = limits.clock
                limits.refused("head_timeout", each.client(), "the TLS handshake")
                each.cut()
        elif each.ending is not None:
            if not each.lingers():
                each.cut()
        elif self._stalls(each):
            limits.refused("send_timeout", each.client(), "")
            each.cut()
            each.ending = limits.clock
        elif isinstance(each.protocol.protocol, H2Protocol):
            self._look_at_http2(each, each.protocol.protocol, steps)
        else:
            self._look_at_http1(each, each.protocol.protocol, steps)

    # -- what has to be taken ------------------------------------------------------------------------------

    def _stalls(self, connection: Any) -> bool:
        """Whether a client has taken no byte for too long of what waits for it."""
        closing = connection.is_closing()
        if not (connection.unsent() or is_busy(connection) or closing):
            connection.taken = None
            return False
        acked = _taken(connection.fileno())
        if closing and acked is None:  # all is delivered, and the client does not confirm the end
            connection.confirm_at = connection.confirm_at or self._limits.clock
            if self._limits.clock - connection.confirm_at >= _CONFIRM:
                connection.abort()
            return False
        # nothing in the kernel: what waits here waits for this process
        taken = None if acked is None else (acked, connection.unsent(), connection.passed)
        if taken is None or taken != connection.taken:
            connection.taken, connection.taken_at = taken, self._limits.clock
            return False
        return bool(self._limits.clock - connection.taken_at >= self._limits.send_timeout)

    # -- what has to come ----------------------------------------------------------------------------------

    def _look_at_http1(self, connection: Any, protocol: Any, steps: list[Step]) -> None:
        stream = protocol.stream
        if stream is None:
            self._look_at_head(connection, protocol, steps)
            return
        connection.head_at = None
        if hasattr(stream, "handshake"):
            self._look_at_websocket(connection, stream, steps)
        else:
            wrong = self._body(stream)
            if wrong:
                steps.append(functools.partial(connection.refuse, "body_timeout", 408, wrong))

    def _look_at_head(self, connection: Any, protocol: Any, steps: list[Step]) -> None:
        begun = bool(protocol.connection.trailing_data[0])
        if protocol.keep_alive_requests == 0:
            since = connection.began
        elif begun:
            since = connection.head_at = connection.head_at or self._limits.clock
        else:
            since = connection.head_at = None  # idle: the keep-alive timeout is for that
        if since is not None and self._limits.clock - since >= self._limits.head_timeout:
            steps.append(functools.partial(connection.refuse, "head_timeout", 408 if begun else 0))

    def _look_at_http2(self, connection: Any, protocol: Any, steps: list[Step]) -> None:
        limits = self._limits
        unfinished = getattr(protocol.connection.incoming_buffer, "_headers_buffer", None)
        if protocol.keep_alive_requests == 0:
            since = connection.began
        else:
            since = connection.head_at = (connection.head_at or limits.clock) if unfinished else None
        if since is not None and limits.clock - since >= limits.head_timeout:
            steps.append(functools.partial(connection.refuse, "head_timeout"))
            return
        for number, stream in list(protocol.streams.items()):
            if hasattr(stream, "handshake"):
                self._look_at_websocket(connection, stream, steps)
                continue
            wrong = self._body(stream)
            if wrong:
                steps.append(functools.partial(protocol.refuse, number, "body_timeout", 408, wrong))
        for number, buffer in list(protocol.stream_buffers.items()):
            if not buffer.buffer or buffer.popped != buffer.seen:
                buffer.seen, buffer.seen_at = buffer.popped, limits.clock
            elif limits.clock - buffer.seen_at >= limits.send_timeout:
                buffer.seen_at = limits.clock
                steps.append(functools.partial(protocol.refuse, number, "send_timeout", 0))

    def _body(self, stream: Any) -> str:
        """What is wrong with the body of a stream's request, "" for nothing."""
        if stream.ended or stream.closed:
            return ""
        if stream.pace is None:
            stream.pace = Pace(self._limits.clock, stream.body, self._limits)
            return ""
        wrong: str = stream.pace.check(self._limits.clock, stream.body, waiting=is_awaited(stream))
        return wrong

    def _look_at_websocket(self, connection: Any, stream: Any, steps: list[Step]) -> None:
        """A client that is silent is asked, and closed if it does not answer that."""
        limits = self._limits
        if stream.state is ASGIWebsocketState.HANDSHAKE:
            return  # the application has not decided yet
        if stream.heard or stream.heard_at is None:
            stream.heard, stream.heard_at, stream.asked_at = False, limits.clock, None
        elif stream.asked_at is None:
            if limits.clock - stream.heard_at >= limits.ping:
                stream.asked_at = limits.clock
                steps.append(stream.ask)
        elif connection.taken is not None:
            stream.asked_at = limits.clock  # the question may not be there yet: the send timeout is for that
        elif limits.clock - stream.asked_at >= limits.ping:
            stream.heard_at = None
            steps.append(functools.partial(stream.refuse, 1011, "a ping was not answered"))


def is_busy(connection: Any) -> bool:
    """Whether a request or a WebSocket is on a connection."""
    if not hasattr(connection, "protocol"):
        return False  # in its TLS handshake
    protocol = connection.protocol.protocol
    return bool(protocol.streams if isinstance(protocol, H2Protocol) else protocol.stream)


def is_awaited(stream: Any) -> bool:
    """Whether the application waits for the next message of a stream."""
    put = getattr(stream, "app_put", None)
    queue = getattr(put, "__self__", None)
    if queue is None:
        return False
    getters = getattr(queue, "_getters", None)  # asyncio.Queue has no public way to ask
    if getters is not None:
        return any(not each.done() for each in getters)
    return bool(queue.statistics().tasks_waiting_receive)


def idle_ones(connections: Iterable[Any]) -> list[Any]:
    """Some of the connections without a request, the oldest first, to make room for another."""
    found = [each for each in connections if each.ending is None and not is_busy(each) and not _arrives(each)]
    found.sort(key=lambda each: each.number)
    return found[:_CROWD]


def _arrives(connection: Any) -> bool:
    """Whether a request's head is complete already, but its stream not made."""
    wrapper = getattr(connection, "protocol", None)
    state = wrapper and getattr(getattr(wrapper.protocol, "connection", None), "their_state", None)
    return state is h11.SEND_BODY


def _taken(fd: int) -> object:
    """A value that changes with each byte that the client takes; None if nothing waits in the kernel."""
    waiting = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.TIOCOUTQ, waiting)
        if not waiting[0]:
            return None
        sock = socket.socket(fileno=fd)
        try:
            if sock.family == socket.AF_UNIX:
                return waiting[0]
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
        finally:
            sock.detach()
        return _ACKED.unpack(info)[0]
    except (OSError, ValueError, struct.error):
        return None  # closed already
