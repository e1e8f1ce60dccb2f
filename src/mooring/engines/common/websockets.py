"""The open WebSockets of this process, for engines that don't close them with 1012 (service restart).

Also how to spread many closes over time, since all their clients reconnect to the remaining workers.

Works with any event loop: it only awaits what the engine passes in. Not for HTTP requests: they pass through
unchanged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mooring.application.model import Send

POLICY, TOO_BIG, UNANSWERED = 1008, 1009, 1011  # close codes: RFC 6455, 7.4.1
FRAGMENTS = 10_000  # the most of one message
PING = 20.0  # seconds of silence until a client is asked, and again until its connection ends
SILENCE = 0.5  # seconds without a byte after which a refused client is taken to have sent all of its message
LINGER = 15.0  # seconds that it may send on at most: a close before that would reset it, with 1009 unread
_AGAIN = 60.0  # seconds between two log lines
_said: list[float] = []  # when the last line was written


def refused(log: logging.Logger, size: int) -> None:
    """Log that a message above `size` bytes was refused; at most once a minute."""
    now = time.monotonic()
    if _said and now - _said[-1] < _AGAIN:
        return
    _said[:] = [now]
    log.warning(
        "a WebSocket message of more than %d bytes was refused, its connection closed with 1009: "
        "MOORING_WEBSOCKET_MAX_SIZE is the limit",
        size,
    )


class Silence:
    """Calls `end` once a refused client has been silent for SILENCE seconds. LINGER is left to the caller."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end, self._loop = end, asyncio.get_running_loop()
        self._timer = self._loop.call_later(SILENCE, end)

    def heard(self) -> None:
        """The client has sent something."""
        self._timer.cancel()
        self._timer = self._loop.call_later(SILENCE, self._end)

    def cancel(self) -> None:
        """The connection is gone."""
        self._timer.cancel()


class WebSockets:
    """An ASGI application that knows its open WebSockets."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.restarting = False
        self._app = app
        self._open: set[_Connection] = set()

    def __call__(self, scope: Any, receive: Any, send: Send) -> Any:
        """Not a coroutine function: that would cost each request one more coroutine."""
        if scope["type"] == "websocket":
            return self._run(scope, receive, _Connection(self, send))
        return self._app(scope, receive, send)

    async def _run(self, scope: Any, receive: Any, connection: _Connection) -> None:
        self._open.add(connection)
        try:
            await self._app(scope, receive, connection.send)
        finally:
            self._open.discard(connection)

    def closers(self) -> list[Callable[[], Awaitable[None]]]:
        """For each open WebSocket a function that closes it, to run in a task of its own.

        From now on, WebSockets are closed as soon as they are accepted.
        """
        self.restarting = True
        return [connection.close for connection in self._open]


class _Connection:
    def __init__(self, owner: WebSockets, send: Send) -> None:
        self.owner, self.engine_send = owner, send
        self.accepted = self.closed = False

    async def send(self, message: Any) -> None:
        if self.closed:
            return  # as after a disconnect: receive() tells the application
        await self.engine_send(message)
        if message["type"] == "websocket.close":
            self.closed = True
        elif message["type"] == "websocket.accept":
            self.accepted = True
            if self.owner.restarting:
                await self.close()

    async def close(self) -> None:
        if self.accepted and not self.closed:
            self.closed = True
            await self.engine_send({"type": "websocket.close", "code": 1012})


_FEW, _PACE = 20, 100.0  # up to 20 are closed at once, more than that at 100 per second or faster


def delays(count: int, left: float) -> list[float]:
    """When to close each of `count` WebSockets, in seconds from now: many within half of `left` seconds."""
    if count <= _FEW:
        return [0.0] * count
    over = min(left / 2, count / _PACE)
    return [over * number / count for number in range(count)]
