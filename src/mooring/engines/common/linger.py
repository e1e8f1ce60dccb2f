"""The end of a refused client's connection on asyncio, so that it can read why.

A socket that is closed while data arrives is reset, and the reset may reach the client before it has read the
answer. So the sending side is closed, and what still comes is dropped for a moment.
"""

from __future__ import annotations

import asyncio
from typing import Any

_SECONDS, _BYTES = 3.0, 1024 * 1024


class Lingering(asyncio.Protocol):
    """Drops what comes; aborts after 3 seconds, or after `most` bytes (0: any number)."""

    def __init__(self, before: Any, transport: asyncio.Transport, most: int) -> None:
        self._before, self._transport, self._most = before, transport, most
        self._dropped = 0
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, transport.abort)

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


def linger(protocol: Any, transport: asyncio.Transport, most: int = _BYTES) -> None:
    """End a connection after what was written to it; `protocol` is told when it is lost."""
    if transport.is_closing():
        return
    transport.set_protocol(Lingering(protocol, transport, most))
    transport.resume_reading()
    if transport.can_write_eof():  # not with TLS: its client sees by the answer that nothing follows
        transport.write_eof()
