"""hypercorn's connections: the open ones, how one is refused, and their end with their clients.

By itself hypercorn 0.18 keeps the descriptor until the keep-alive timeout: a load balancer's TCP checks would
use up the descriptors that a process may open. And it closes a connection at once after an error: what the
client still sends is answered with a reset, which takes the answer with it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import h11
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol

from mooring.engines.common.refusal import DROPPED, DROPPED_BODY, LINGER
from mooring.engines.hypercorn.limits import Limits, idle_ones, is_busy

connections: set[Any] = set()  # the open connections of this process
HANDSHAKE = "the TLS handshake"

_LINGER_BODY = 5.0  # seconds, for a body that is too large
_PART = 2**14  # bytes
_LITTLE = 2**16  # bytes that are still read of what may have no end
_FLOODS = {"head_size", "malformed", "http2"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what was not delivered is dropped


class Member:
    """What counts as a connection."""

    limits: Limits  # set on the class
    count = 0
    number = 0
    began: float | None = None  # the watch's clock at its first look
    ending: float | None = None  # the watch's clock at which a refused connection is cut
    _idle: list[Any] = []  # noqa: RUF012 (of all connections)
    _searched = [-1.0]  # noqa: RUF012 (the same)

    def enter(self) -> bool:
        """Be among the connections; False if there is no room, and this one is cut."""
        Member.count = self.number = Member.count + 1
        connections.add(self)
        if len(connections) <= self.limits.max_connections or self._make_room():
            return True
        self.limits.refused("connections", self.client(), "the worker is full of requests")
        self.cut()
        return False

    def _make_room(self) -> bool:
        """Close the oldest connection without a request; False if there is none."""
        self.limits.full(len(connections))
        idle = self._idle
        if not idle and self._searched[0] != self.limits.clock:
            idle.extend(reversed(idle_ones(connections)))
            if not idle:
                self._searched[0] = self.limits.clock  # a search looks at all: not for each newcomer
        while idle:
            each = idle.pop()
            if each in connections and each.ending is None and not is_busy(each):
                each.ending = self.limits.clock
                self.limits.refused("connections", each.client(), "the worker has no room for more")
                each.cut()
                return True
        return False

    def is_late(self) -> bool:
        """Whether a TLS handshake has taken the time of a head. To be called at each look of the watch."""
        return self.limits.clock - (self.began or 0) >= self.limits.head_timeout

    def cut(self) -> None:
        """End a connection at once; what is not delivered is dropped, except a refusal's answer."""
        with contextlib.suppress(OSError, ValueError):
            sock = socket.socket(fileno=self.fileno())
            try:
                if self.ending is None and sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            finally:
                sock.detach()
        self.abort()

    def abort(self) -> None:
        """Close the descriptor."""
        self.socket().close()  # trio wakes who waits for it

    def fileno(self) -> int:
        """The descriptor, -1 if it is closed."""
        sock = self.socket()  # None: a loop has forgotten it
        found: int = -1 if sock is None else sock.fileno()
        return found

    def client(self) -> object:
        """The client's address, None for a unix socket."""
        try:
            family, found = self.socket().family, self.socket().getpeername()
        except (OSError, AttributeError):
            return None
        return None if family == socket.AF_UNIX else found

    def socket(self) -> Any:
        """The socket."""
        raise NotImplementedError


class _Limited(Member):
    """The mixin for hypercorn's TCPServer, on asyncio and on trio."""

    _send: Callable[[Any], Coroutine[Any, Any, None]]  # hypercorn's protocol_send
    busy: tuple[type[Exception], ...] = ()  # set on the class: trio's, where another task says that it ends
    head_at: float | None = None
    taken: object = None
    taken_at = 0.0
    confirm_at: float | None = None
    passed = 0  # parts of what was sent over a unix socket on trio
    discarded = 0
    _seen = -1
    most_discarded = DROPPED
    _left = False

    async def run(self) -> None:
        """Run as hypercorn's does, and be in `connections` meanwhile."""
        server: Any = super()
        try:
            if self._succeeds() or self.enter():
                self._count_parts()
                await server.run()
                if not hasattr(self, "protocol"):
                    self._has_failed()
        finally:
            connections.discard(self)

    def _count_parts(self) -> None:
        """Send in counted parts: on trio nothing else tells what a client takes of a unix socket."""
        stream: Any = getattr(self, "stream", None)
        sock = getattr(stream, "socket", None)  # not of TLS
        if sock is None or sock.family != socket.AF_UNIX:
            return
        send_all = stream.send_all

        async def counted(data: bytes) -> None:
            view = memoryview(data)
            for first in range(0, max(1, len(view)), _PART):
                await send_all(view[first : first + _PART])
                self.passed += 1

        stream.send_all = counted

    def _succeeds(self) -> bool:
        """Whether this one stands for a handshake that was among the connections. Not on trio."""
        writer: Any = getattr(self, "writer", None)
        handshake = writer and getattr(writer.transport.get_protocol(), "handshake", None)
        if not handshake:
            return False
        self.number, self.began = handshake.number, handshake.began
        connections.discard(handshake)
        connections.add(self)
        return True

    def _has_failed(self) -> None:
        """The handshake is over, on trio: perhaps by hypercorn's own time for it."""
        config: Any = self.config  # type: ignore[attr-defined]
        taken = self.limits.clock - (self.limits.clock if self.began is None else self.began)
        if self.ending is None and taken >= config.ssl_handshake_timeout:
            self.limits.refused("head_timeout", self.client(), HANDSHAKE)

    async def _read_data(self) -> None:
        server: Any = super()
        try:
            await server._read_data()
        finally:
            self._left = True
        await self.idle_task.stop()  # type: ignore[attr-defined]

    def protocol_send(self, event: Any) -> Coroutine[Any, Any, None]:
        """As hypercorn's, but for its ends. Not a coroutine function: that would cost each event more."""
        kind = type(event)
        if kind is RawData:
            return self._guarded(event) if self.busy else self._send(event)
        if kind is Closed:
            return self._closes(event)
        # an update would start the idle timer again
        return _nothing() if self._left and kind is Updated else self._send(event)

    async def _guarded(self, event: Any) -> None:
        try:
            await self._send(event)
        except self.busy:
            await self.protocol.handle(Closed())  # type: ignore[attr-defined]

    async def _closes(self, event: Any) -> None:
        if self.ending is not None:
            return
        wrong = self._wrong()
        if wrong is not None:
            await self.refuse(*wrong)
        elif self._is_unread():
            await self._end(LINGER, DROPPED)
        else:
            await self._send(event)

    def _wrong(self) -> tuple[str, int, str] | None:
        """Why hypercorn closes a connection, if that is because of what the client has sent."""
        protocol: Any = self.protocol.protocol  # type: ignore[attr-defined]
        if isinstance(protocol, H2Protocol):
            wrong: Any = protocol
            return (wrong.reason, 0, wrong.wrong) if wrong.wrong else None
        connection = protocol.connection
        failed = protocol.answered or (
            getattr(connection, "their_state", None) is h11.ERROR and not _is_over(connection)
        )
        if not failed or connection.trailing_data[1]:
            return None  # [1]: the client has left
        return ("head_size" if protocol.answered == 431 else "malformed"), 0, ""

    async def _initiate_server_close(self) -> None:
        """What the idle timer does. A head that is expected or has begun has a time of its own: limits.py."""
        context: Any = self.context  # type: ignore[attr-defined]
        if context.terminated.is_set() or not self._expects_head():
            await self.close_idle()

    def _expects_head(self) -> bool:
        protocol: Any = self.protocol.protocol  # type: ignore[attr-defined]
        if protocol.keep_alive_requests == 0:
            return True
        return not isinstance(protocol, H2Protocol) and bool(protocol.connection.trailing_data[0])

    async def close_idle(self) -> None:
        """Close a connection that nobody uses."""
        server: Any = super()
        await server._initiate_server_close()

    # -- for the limits ------------------------------------------------------------------------------------

    async def refuse(self, reason: str, status: int = 0, detail: str = "", *, body: bool = False) -> None:
        """End a connection because of its client: with `status` (HTTP/1) if an answer is still possible.

        What the client still sends is read for a moment and thrown away, so that it can read the answer. With
        `body` that may be much.
        """
        if self.ending is not None:
            return
        self.ending = self.limits.clock + LINGER
        self.limits.refused(reason, self.client(), detail)
        wrapper: Any = self.protocol  # type: ignore[attr-defined]
        protocol, wrapper.handle = wrapper.protocol, self._discard
        if isinstance(protocol, H2Protocol):
            if not protocol.wrong:  # type: ignore[attr-defined]  # else h2 has sent GOAWAY itself
                code = ErrorCodes.ENHANCE_YOUR_CALM if reason == "http2" else ErrorCodes.NO_ERROR
                with contextlib.suppress(ProtocolError):
                    protocol.connection.close_connection(code)
            await protocol._flush()
        else:
            state = getattr(protocol.connection, "our_state", None)
            if status and state in (h11.IDLE, h11.SEND_RESPONSE):
                await protocol._send_error_response(status)
            protocol._send_h11_event = protocol._maybe_recycle = _nothing
        body = body or reason == "body_size"
        most = DROPPED_BODY if body else _LITTLE if reason in _FLOODS else DROPPED
        await self._end(_LINGER_BODY if body else LINGER, most)

    async def _end(self, seconds: float, most: int) -> None:
        """Read what the client still sends for so many seconds, and so many bytes; then the watch cuts."""
        wrapper: Any = self.protocol  # type: ignore[attr-defined]
        self.ending, self.most_discarded = self.limits.clock + seconds, most
        wrapper.handle = self._discard
        await self._half_close()
        await wrapper.protocol.handle(Closed())

    async def _discard(self, event: Any) -> None:
        self.discarded += len(getattr(event, "data", b""))
        if self.discarded > self.most_discarded:
            self.cut()

    def lingers(self) -> bool:
        """Whether a client that is refused may still be reading. To be called at each look of the watch."""
        quiet, self._seen = self.discarded == self._seen and not self.unsent(), self.discarded
        return not quiet and self.limits.clock < (self.ending or 0)

    def _is_unread(self) -> bool:
        """Whether an answer is complete before what comes is: its request, or more behind the last one."""
        connection = getattr(self.protocol.protocol, "connection", None)  # type: ignore[attr-defined]
        if not isinstance(connection, h11.Connection):
            return False
        state = connection.their_state
        return state is h11.SEND_BODY or (state is h11.ERROR and _is_over(connection))

    async def _half_close(self) -> None:
        """Say that nothing more comes. Not over TLS, which has no half."""
        writer: Any = getattr(self, "writer", None)
        if writer is not None:
            with contextlib.suppress(NotImplementedError, OSError, RuntimeError):
                writer.write_eof()
            return
        stream: Any = self.stream  # type: ignore[attr-defined]
        if hasattr(stream, "send_eof"):
            with contextlib.suppress(Exception):  # trio: gone, or another task sends
                await stream.send_eof()

    def unsent(self) -> int:
        """What waits in this process to be sent: bytes, or on trio 1."""
        writer: Any = getattr(self, "writer", None)
        if writer is not None:
            size: int = writer.transport.get_write_buffer_size()
            return size
        return int(self.send_lock.locked())  # type: ignore[attr-defined]

    def is_closing(self) -> bool:
        """Whether TLS is being ended, on asyncio."""
        writer: Any = getattr(self, "writer", None)
        return writer is not None and writer.is_closing()

    def client(self) -> object:
        """The client's address, None for a unix socket."""
        protocol: Any = getattr(self, "protocol", None)
        return super().client() if protocol is None else protocol.client

    def abort(self) -> None:
        """Close the descriptor."""
        writer: Any = getattr(self, "writer", None)
        if writer is not None:
            writer.transport.abort()
        else:
            super().abort()

    def socket(self) -> Any:
        """The socket."""
        writer: Any = getattr(self, "writer", None)
        if writer is not None:
            return writer.get_extra_info("socket")
        stream: Any = self.stream  # type: ignore[attr-defined]
        return getattr(stream, "transport_stream", stream).socket


def _is_over(connection: Any) -> bool:
    """Whether we have said that we end a connection: what comes then is no error."""
    return connection.our_state in (h11.MUST_CLOSE, h11.CLOSED)


async def _nothing(*_: object) -> None:
    return


def install(run: ModuleType, limits: Limits, *busy: type[Exception]) -> None:
    """Make `worker_serve` of `run`, one of hypercorn's run modules, use this mixin."""
    Member.limits, _Limited.busy = limits, busy
    original = vars(run)["TCPServer"]
    if not issubclass(original, _Limited):
        vars(run)["TCPServer"] = type("TCPServer", (_Limited, original), {"_send": original.protocol_send})


def of(protocol: Any) -> Any:
    """The connection of a hypercorn protocol."""
    return protocol.send.__self__
