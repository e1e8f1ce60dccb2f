"""What the watch looks at of an ASGI application's request on granian: its body, and an answer that waits.

A body's time and size are limited. What is refused is answered with 408 or 413 where the response has not
begun; the application is told that the client has left. For WSGI: bodies.py, request.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mooring.engines.common.refusal import LARGE, TIME, Answer
from mooring.engines.granian.websocket import ClientLeftError, Live

_GONE = {"type": "http.disconnect"}


class Sending:
    """An answer over HTTP/2 of which a part may wait for the client's window: see engines/common/watch.py."""

    __slots__ = ("_live", "_pending", "_proto", "_sent", "client", "given_up")

    def __init__(self, proto: Any, client: Any, live: Live) -> None:
        self._proto, self._live, self.client = proto, live, client
        self._pending: Any = None
        self._sent, self.given_up = 0, False

    @property
    def parts(self) -> int:
        """How many were sent; below 0: none waits."""
        return -1 if self._pending is None else self._sent

    async def send(self, message: dict[str, Any]) -> None:
        """Send a part, and wait until granian takes more. Raises OSError where the client takes nothing."""
        sent = self._proto.send(message)
        self._sent += 1
        if not hasattr(sent, "add_done_callback"):
            await sent
            return
        self._pending = sent
        self._live.sendings.add(self)
        try:
            await sent
        except asyncio.CancelledError:
            if not self.given_up:
                raise
            raise ClientLeftError("the client takes nothing of the answer") from None
        finally:
            self._pending = None
            self._live.sendings.discard(self)

    def give_up(self) -> None:
        """See engines/common/watch.py."""
        self._live.loop.call_soon_threadsafe(self._give_up)

    def _give_up(self) -> None:
        cancel = getattr(self._pending, "cancel", None)
        if cancel is not None:
            self.given_up = True
            cancel()


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
        """Refuse the rest of the body.

        After a whole answer granian would go on waiting for it. Over TCP the watch ends the connection; over
        a unix socket the answer ends with the request, when granian has dropped the body too.
        """
        self.refused = self.ended = True
        if not self.begun:
            for message in refusal.messages(unended=self.client is None):
                await self._proto.send(message)

    def refuse(self) -> None:
        """See engines/common/watch.py."""
        self._live.loop.call_soon_threadsafe(self._refuse)

    def _refuse(self) -> None:
        cancel = getattr(self._pending, "cancel", None)
        if cancel is not None:
            self.late = True
            cancel()
