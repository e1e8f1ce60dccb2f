"""The drain's gate on hypercorn, for asyncio and trio alike: it says what to do, the worker does it.

On HTTP/2, a connection without streams gets GOAWAY at once, a connection with streams when they have ended or
its time is over. Not earlier: common clients (the library h2) take GOAWAY for the end of open streams too.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import h11
from hypercorn.events import RawData
from hypercorn.protocol.h2 import H2Protocol

from mooring.engines.common.connections import Connections, unread
from mooring.engines.common.gate import Idle
from mooring.engines.common.stop import warn_of_cut
from mooring.engines.common.websockets import delays
from mooring.engines.hypercorn.config import HypercornJob
from mooring.engines.hypercorn.connections import connections
from mooring.engines.hypercorn.h2 import DrainingH2Protocol

# The frame of RFC 9113, 6.8, for all streams that there may be: 8 bytes on stream 0, no error.
_GOAWAY = RawData(data=bytes.fromhex("000008 07 00 00000000 7fffffff 00000000"))
_log = logging.getLogger("hypercorn.error")

DrainStep = Callable[[], Awaitable[object]]


class HypercornGate:
    """One drain. Create it when the drain begins, before the listeners close; look every LOOK seconds."""

    def __init__(self, job: HypercornJob) -> None:
        serving, DrainingH2Protocol.draining = job.serving, True
        self._job, self._patience = job, serving.plan.settings.drain_idle
        self._idle = Idle(self._patience)
        self._began = time.monotonic()
        self._kernel = Connections(serving.doors.names)
        self._asked: set[Any] = set()  # connections that got GOAWAY
        self._leaving: set[Any] = set()  # connections that we are closing
        closers = job.websockets.closers()
        due = delays(len(closers), job.stop.remaining_for_requests())
        self._closers = [(self._began + delay, close) for delay, close in zip(due, closers, strict=True)]

    def look(self) -> list[DrainStep] | None:
        """The steps for now, each to run in a task of its own; None when the drain is over.

        It is over when no connection is left, or when requests have no time left. hypercorn's own timeouts
        are set then.
        """
        now, left = time.monotonic(), self._job.stop.remaining_for_requests()
        known = [each for each in connections if hasattr(each, "protocol")]
        handshaking = now < self._began + self._patience and self._handshaking(len(known))
        if not (known or handshaking) or not left:
            if known:
                warn_of_cut(_log, self._job.serving)
            self._job.config.graceful_timeout = left if not connections else 0
            self._job.config.shutdown_timeout = self._job.stop.remaining()
            return None
        marks = [(each, mark(each)) for each in known]
        actions: list[DrainStep] = [close for at, close in self._closers if at <= now]
        self._closers = [each for each in self._closers if each[0] > now]
        for each, found in marks:
            over = now - self._began >= self._patience
            if (found is not None or over) and is_http2(each) and each not in self._asked:
                self._asked.add(each)
                leave = each.protocol.protocol.leave
                actions.append(leave if found is not None else functools.partial(each.protocol_send, _GOAWAY))
        for each in self._idle.expired(now, marks):
            if each not in self._leaving and not _has_more(each):
                self._leaving.add(each)
                actions.append(each.close_idle)
        return actions

    def _handshaking(self, known: int) -> bool:
        """Whether there are connections that hypercorn does not know yet: with TLS, during the handshake."""
        return self._job.config.ssl_enabled and len(self._kernel.silences()) > known


def is_http2(connection: Any) -> bool:
    """Whether the connection uses HTTP/2 by now."""
    return isinstance(connection.protocol.protocol, H2Protocol)


def mark(connection: Any) -> object:
    """None while the connection is busy, else a value that changes with everything that its client does."""
    protocol = connection.protocol.protocol
    if isinstance(protocol, H2Protocol):
        return None if protocol.streams or protocol.stream_buffers else protocol.keep_alive_requests
    if protocol.stream is not None:
        # an idle stream is a WebSocket that we have closed, and whose client has not sent its own close
        return "closed" if protocol.stream.idle else None
    state = getattr(protocol.connection, "their_state", None)
    if state not in (h11.IDLE, None):
        return None  # a request is arriving
    return protocol.keep_alive_requests, len(protocol.connection.trailing_data[0])


def _has_more(connection: Any) -> bool:
    """Whether the client has sent data that hypercorn has not seen yet."""
    if hasattr(connection, "writer"):
        return bool(connection.reader._buffer) or unread(connection.writer.get_extra_info("socket").fileno())
    stream = connection.stream
    return unread(getattr(stream, "transport_stream", stream).socket.fileno())
