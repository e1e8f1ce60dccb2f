"""hypercorn's WebSocket, changed to pass on the client's close code.

For the drain: engines/common/websockets.py.

By itself hypercorn 0.18 gives the application 1006 (abnormal) for every close by the client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import WSStream
from wsproto.events import CloseConnection


class CodedWSStream(WSStream):
    """Gives the application the code and reason of the client's close frame."""

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
    """Replace hypercorn's class by this one, in this process."""
    for module in (h11, h2):
        vars(module)["WSStream"] = CodedWSStream
