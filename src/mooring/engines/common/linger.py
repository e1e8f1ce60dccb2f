"""The end of a refused client's connection on asyncio, so that it can read why.

A socket that is closed while data arrives is reset, and the reset may reach the client before it has read
the answer. So the sending side is closed, and what still comes is dropped for a moment. With TLS that side
cannot be closed alone, and data after it is an error: the connection is closed when nothing more comes.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from mooring.engines.common.connections import unread
from mooring.engines.common.refusal import DROPPED, LINGER

_PAUSE = 0.5
_LOOKS = round(LINGER / _PAUSE)


class Lingering(asyncio.Protocol):
    """Drops what comes; aborts after LINGER seconds, or after `most` bytes (0: any number)."""

    def __init__(self, before: Any, transport: asyncio.Transport, most: int) -> None:
        self._before, self._transport, self._most = before, transport, most
        self._dropped = self._seen = 0
        self._left = _LOOKS
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_PAUSE, self._look)

    def _look(self) -> None:
        self._left -= 1
        if not self._left:
            self._transport.abort()
            return
        if self._dropped == self._seen and not self._transport.can_write_eof():
            self._transport.close()
        self._seen = self._dropped
        self._timer = self._loop.call_later(_PAUSE, self._look)

    def data_received(self, data: bytes) -> None:
        """Drop it."""
        self._dropped += len(data)
        if self._dropped > self._most > 0:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol that was there before."""
        self._timer.cancel()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """As the protocol that was there before."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """As the protocol that was there before."""
        self._before.resume_writing()


def linger(protocol: Any, transport: asyncio.Transport, most: int = DROPPED) -> None:
    """End a connection after what was written to it; `protocol` is told when it is lost.

    With few bytes as `most` it is a flood that ends: at once if more than that waits already.
    """
    if transport.is_closing():
        return
    sock = transport.get_extra_info("socket")
    if 0 < most < DROPPED and sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, most)  # the kernel takes no more of a flood
        if unread(sock.fileno(), most):
            transport.abort()
            return
    transport.set_protocol(Lingering(protocol, transport, most))
    transport.resume_reading()
    if transport.can_write_eof():  # not with TLS: its client sees by the answer that nothing follows
        transport.write_eof()
