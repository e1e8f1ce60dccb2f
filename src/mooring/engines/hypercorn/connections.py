"""hypercorn's connections: the open ones, how one is refused, and their end with their clients.

By itself hypercorn 0.18 keeps the descriptor until the keep-alive timeout: a load balancer's TCP checks would
use up the descriptors that a process may open. And it closes a connection at once after an error: what the
client still sends is answered with a reset, which takes the answer with it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
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

_LINGER_BODY = 5.0  # seconds, for a body that is too large
_LITTLE = 2**16  # bytes that are still read of what may have no end
_FLOODS = {"head_size", "malformed", "http2"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what was not delivered is dropped


class _Limited:
    """The mixin for hypercorn's TCPServer, on asyncio and on trio."""

    limits: Limits  # set on the class
    count = 0
    began: float | None = None  # the watch's clock at its first look
    ending: float | None = None  # the watch's clock at which a refused connection is cut
    head_at: float | None = None
    taken: object = None
    taken_at = 0.0
    discarded = 0
    _seen = -1
    most_discarded = DROPPED
    _left = False
    _idle: list[Any] = []  # noqa: RUF012 (of all connections)
    _searched = [-1.0]  # noqa: RUF012 (the same)

    async def run(self) -> None:
        """Run as hypercorn's does, and be in `connections` meanwhile."""
        _Limited.count = self.number = _Limited.count + 1
        connections.add(self)
        server: Any = super()
        try:
            if len(connections) > self.limits.max_connections and not self._make_room():
                self.limits.refused("connections", self.client(), "the worker is full of requests")
                self.cut()
                return
            await server.run()
        finally:
            connections.discard(self)

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

    async def _read_data(self) -> None:
        server: Any = super()
        await server._read_data()
        self._left = True
        await self.idle_task.stop()  # type: ignore[attr-defined]

    async def protocol_send(self, event: Any) -> None:
        if not isinstance(event, RawData):
            if self._left and isinstance(event, Updated):
                return  # it would start the idle timer again
            if isinstance(event, Closed):
                if self.ending is not None:
                    return
                wrong = self._wrong()
                if wrong is not None:
                    await self.refuse(*wrong)
                    return
                if self._is_unread():
                    await self._end(LINGER, DROPPED)
                    return
        server: Any = super()
        await server.protocol_send(event)

    def _wrong(self) -> tuple[str, int, str] | None:
        """Why hypercorn closes a connection, if that is because of what the client has sent."""
        protocol: Any = self.protocol.protocol  # type: ignore[attr-defined]
        if isinstance(protocol, H2Protocol):
            return ("http2", 0, protocol.wrong) if protocol.wrong else None  # type: ignore[attr-defined]
        connection = protocol.connection
        failed = protocol.answered or getattr(connection, "their_state", None) is h11.ERROR
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

    async def refuse(self, reason: str, status: int = 0, detail: str = "") -> None:
        """End a connection because of its client: with `status` (HTTP/1) if an answer is still possible.

        What the client still sends is read for a moment and thrown away, so that it can read the answer.
        """
        if self.ending is not None:
            return
        self.ending = self.limits.clock + LINGER
        self.limits.refused(reason, self.client(), detail)
        wrapper: Any = self.protocol  # type: ignore[attr-defined]
        protocol, wrapper.handle = wrapper.protocol, self._discard
        if isinstance(protocol, H2Protocol):
            with contextlib.suppress(ProtocolError):  # h2 has sent GOAWAY itself
                calm = reason == "http2"
                protocol.connection.close_connection(
                    ErrorCodes.ENHANCE_YOUR_CALM if calm else ErrorCodes.NO_ERROR
                )
            await protocol._flush()
        else:
            state = getattr(protocol.connection, "our_state", None)
            if status and state in (h11.IDLE, h11.SEND_RESPONSE):
                await protocol._send_error_response(status)
            protocol._send_h11_event = protocol._maybe_recycle = _nothing
        body = reason == "body_size"
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
        """Whether an answer is complete before its request is."""
        connection = getattr(self.protocol.protocol, "connection", None)  # type: ignore[attr-defined]
        return isinstance(connection, h11.Connection) and connection.their_state is h11.SEND_BODY

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

    def cut(self) -> None:
        """End a connection at once; what is not delivered is dropped, except a refusal's answer."""
        writer: Any = getattr(self, "writer", None)
        with contextlib.suppress(OSError, ValueError):
            sock = socket.socket(fileno=self.fileno())
            try:
                if self.ending is None and sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            finally:
                sock.detach()
        if writer is not None:
            writer.transport.abort()
        else:
            self._socket().close()  # trio wakes who waits for it

    def fileno(self) -> int:
        """The descriptor, -1 if it is closed."""
        found: int = self._socket().fileno()
        return found

    def unsent(self) -> int:
        """What waits in this process to be sent: bytes, or on trio 1."""
        writer: Any = getattr(self, "writer", None)
        if writer is not None:
            size: int = writer.transport.get_write_buffer_size()
            return size
        return int(self.send_lock.locked())  # type: ignore[attr-defined]

    def client(self) -> object:
        """The client's address, None for a unix socket."""
        protocol: Any = getattr(self, "protocol", None)
        if protocol is not None:
            return protocol.client
        with contextlib.suppress(Exception):  # closed meanwhile
            return self._socket().getpeername() or None
        return None

    def _socket(self) -> Any:
        writer: Any = getattr(self, "writer", None)
        if writer is not None:
            return writer.get_extra_info("socket")
        stream: Any = self.stream  # type: ignore[attr-defined]
        return getattr(stream, "transport_stream", stream).socket


async def _nothing(*_: object) -> None:
    return


def install(run: ModuleType, limits: Limits) -> None:
    """Make `worker_serve` of `run`, one of hypercorn's run modules, use this mixin."""
    _Limited.limits = limits
    original = vars(run)["TCPServer"]
    if not issubclass(original, _Limited):
        vars(run)["TCPServer"] = type("TCPServer", (_Limited, original), {})


def of(protocol: Any) -> Any:
    """The connection of a hypercorn protocol."""
    return protocol.send.__self__
