"""The limits of time of uvicorn's connections: a look at all of them once a second, no work for each read.

So each limit may be exceeded by a look's interval.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Collection, Iterable
from typing import Any

from mooring.engines.common.connections import unread
from mooring.engines.common.pace import Pace
from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.engines.uvicorn.limits import Limits
from mooring.engines.uvicorn.websockets import QuietWebSockets

_LOOK = 1.0  # seconds
_CONFIRM = 3.0  # seconds for a client's close_notify; RFC 8446, 6.1 does not require it
_ACKED = struct.Struct("=120xQ")  # tcpi_bytes_acked of tcp_info (linux/tcp.h)


class Watch:
    """Looks at the connections of one worker."""

    def __init__(self, connections: Iterable[Any], limits: Limits, others: Collection[Any] = ()) -> None:
        """`others`: those that only count, since they have a time of their own (handshake.py)."""
        self._connections, self._limits, self._others = connections, limits, others
        self._before = 0.0
        given = (limits.head_timeout, limits.body_timeout, limits.send_timeout)
        self.pause = min([_LOOK, *(each / 2 for each in given if each)])

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        self._before = loop.time()
        while True:
            await asyncio.sleep(self.pause)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """End each connection whose time is over."""
        # a loop that was held up has not read what came meanwhile
        passed, self._before = min(now - self._before, 2 * self.pause), now
        connections = list(self._connections)
        self._limits.full(len(connections) + len(self._others))
        for each in connections:
            if isinstance(each, LimitedHttpToolsProtocol):
                self._owed(each, now, passed)
                self._taken(each, now, each.delivering())
            elif isinstance(each, QuietWebSockets):
                self._taken(each, now, each.open)

    def _owed(self, each: LimitedHttpToolsProtocol, now: float, passed: float) -> None:
        awaits = None if each.transport.is_closing() else each.awaits()
        if awaits is None:
            each.awaited = None
            return
        what, mark = awaits
        limit = self._limits.head_timeout if what == "head" else self._limits.body_timeout
        if each.awaited != awaits:
            new = each.awaited is None and mark is None  # a new connection owes a head since it was made
            each.awaited, each.since = awaits, each.made if new else now
        slow = what == "body" and self._slow(each, passed)
        if limit and (now - each.since >= limit or slow) and not _arrived(each):
            each.expire(what)

    def _slow(self, each: LimitedHttpToolsProtocol, passed: float) -> bool:
        """Whether a body comes too slowly."""
        if each.rated is not each.cycle:
            each.rated, each.pace = each.cycle, Pace(each.taken)
            return False
        return each.pace is not None and each.pace.is_slow(each.taken, passed, self._limits.body_timeout)

    def _taken(self, each: Any, now: float, delivering: bool) -> None:
        transport = each.transport
        size = transport.get_write_buffer_size()
        if not (size or delivering or transport.is_closing()):
            each.sending = None
            return
        mark = progress(transport, size)
        if mark is None and not transport.is_closing():
            each.sending = None
        elif each.sending != (mark,):
            each.sending, each.sending_since = (mark,), now
        elif mark is None:  # TLS: all is delivered, and the client does not confirm the close
            if now - each.sending_since >= _CONFIRM:
                transport.abort()
        elif 0 < self._limits.send_timeout <= now - each.sending_since:
            self._limits.refused("send_timeout", each.client, "")
            each.sending = None
            transport.abort()


def _arrived(each: LimitedHttpToolsProtocol) -> bool:
    """Whether data waits that a loop which was held up has not read yet."""
    sock = each.transport.get_extra_info("socket")
    return not each.flow.read_paused and sock is not None and unread(sock.fileno())


def progress(transport: asyncio.Transport, size: int) -> object:
    """A mark that changes with each byte that the client takes; None if nothing waits for it."""
    try:
        sock = transport.get_extra_info("socket")
        queued = array.array("i", [0])
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, queued)
        if not size + queued[0]:
            return None
        if sock.family == socket.AF_UNIX:
            return size, queued[0]
        acked = _ACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size))
    except (OSError, ValueError, AttributeError, struct.error):
        return None  # closed already
    return acked
