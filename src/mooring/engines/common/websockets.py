"""The open WebSockets of this process, for engines that don't close them with 1012 (service restart).

Also when to close each of many: their clients all come back to the workers that are left.

Loop-agnostic: it only awaits what the engine gives it. Not for HTTP requests: those pass through untouched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mooring.application.model import Send


class WebSockets:
    """An ASGI application that knows its open WebSockets."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.restarting = False
        self._app = app
        self._open: set[_Connection] = set()

    def __call__(self, scope: Any, receive: Any, send: Send) -> Any:
        """Plain, not async: requests must not pay for one more coroutine."""
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
        """What closes each, one task for one; those accepted later are closed at once."""
        self.restarting = True
        return [connection.close for connection in self._open]


class _Connection:
    def __init__(self, owner: WebSockets, send: Send) -> None:
        self.owner, self.engine_send = owner, send
        self.accepted = self.closed = False

    async def send(self, message: Any) -> None:
        if self.closed:
            return  # as after a disconnect: the application learns it from receive
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


_FEW, _PACE = 20, 100.0  # so many at once; so many per second


def delays(count: int, left: float) -> list[float]:
    """Seconds from now for each of `count`: few at once, many over at most half of the `left` seconds."""
    if count <= _FEW:
        return [0.0] * count
    over = min(left / 2, count / _PACE)
    return [over * number / count for number in range(count)]
