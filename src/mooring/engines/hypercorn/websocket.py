"""hypercorn's WebSocket, with the code that the client closes with. For the drain: common/websockets.py.

As of hypercorn 0.18 the application is told 1006 (abnormal) of every close that comes from the client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import WSStream
from wsproto.events import CloseConnection


class CodedWSStream(WSStream):
    """Tells the application of the close frame that has come."""

    close: CloseConnection | None = None

    async def handle(self, event: Event) -> None:
        """As hypercorn's, but the disconnect after a close frame carries its code and reason."""
        if self.close is None or self.closed or not isinstance(event, StreamClosed):
            await super().handle(event)
            return
        self.closed = True
        if self.app_put is not None:
            code, reason = int(self.close.code), self.close.reason or ""
            await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def _accept(self, message: Any) -> None:
        await super()._accept(message)
        connection: Any = self.connection
        events = connection.events

        def noted() -> Iterator[Any]:
            for event in events():
                if isinstance(event, CloseConnection):
                    self.close = event
                yield event

        connection.events = noted


def install() -> None:
    """Put it in the place of hypercorn's, in this process."""
    for module in (h11, h2):
        vars(module)["WSStream"] = CodedWSStream
