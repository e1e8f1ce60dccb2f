"""A request's body on granian's ASGI worker, read by an ASGI application: its time and its size are limited.

What is refused is answered with 408 or 413 where the response has not begun; the application is told that the
client has left. For WSGI: request.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mooring.engines.common.refusal import LARGE, TIME, Answer
from mooring.engines.granian.websocket import Live

_GONE = {"type": "http.disconnect"}


class Upload:
    """One body. `begun`: the response has begun; `refused`: nothing is read or sent any more."""

    __slots__ = (
        "_live",
        "_pending",
        "_proto",
        "begun",
        "client",
        "ended",
        "late",
        "multiplexed",
        "received",
        "refused",
        "waiting",
    )

    def __init__(self, proto: Any, scope: dict[str, Any], live: Live) -> None:
        self._proto, self._live = proto, live
        self.client = scope["client"]
        self.multiplexed = scope["http_version"] == "2"
        self._pending: Any = None
        self.received = 0
        self.waiting = self.refused = self.late = self.begun = self.ended = False

    async def receive(self) -> Any:
        """The next message."""
        if self.refused:
            return _GONE
        self.waiting = True
        self._pending = self._proto.receive()
        try:
            message = await self._pending
        except asyncio.CancelledError:
            if not self.late:
                raise
            await self.answer(TIME)
            return _GONE
        finally:
            self.waiting, self._pending = False, None
        self.received += len(message.get("body") or b"")
        self.ended = not message.get("more_body")
        most = self._live.max_body
        if most and self.received > most:
            self._live.refused("body_size", self.client, "")
            await self.answer(LARGE)
            return _GONE
        return message

    async def answer(self, refusal: Answer) -> None:
        """Refuse the rest of the body."""
        self.refused = self.ended = True
        if not self.begun:
            for message in refusal.messages():
                await self._proto.send(message)

    def refuse(self) -> None:
        """See engines/common/watch.py."""
        self._live.loop.call_soon_threadsafe(self._refuse)

    def _refuse(self) -> None:
        cancel = getattr(self._pending, "cancel", None)
        if cancel is not None:
            self.late = True
            cancel()
