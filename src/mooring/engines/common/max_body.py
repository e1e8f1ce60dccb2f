"""`max_body` around an ASGI application, for servers that know no such limit. Used only where it is set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mooring.engines import Serving
from mooring.engines.common.refusal import LARGE

_GONE = {"type": "http.disconnect"}
Call = Callable[[Any, Any, Any], Awaitable[None]]


def limited(application: Call, serving: Serving) -> Call:
    """`application`, which gets no more of a body than `max_body`: the client gets 413, and the end."""
    most = serving.plan.settings.max_body
    if not most:
        return application

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        request = _Request(scope, receive, send, serving)
        if any(is_larger(each, most) for each in scope["headers"]):
            await request.refuse()
        else:
            await application(scope, request.receive, request.send)

    return call


def is_larger(header: tuple[bytes, bytes], size: int) -> bool:
    """Whether a header declares a body of more than `size` bytes."""
    return header[0] == b"content-length" and header[1].isdigit() and int(header[1]) > size


class _Request:
    def __init__(self, scope: Any, receive: Any, send: Any, serving: Serving) -> None:
        self._client, self._receive, self._send = scope["client"], receive, send
        self._refused, self._most = serving.refused, serving.plan.settings.max_body
        self._begun, self._size = False, 0

    async def refuse(self) -> None:
        self._refused("body_size", self._client, "")
        if not self._begun:
            for message in LARGE.messages():
                await self._send(message)

    async def receive(self) -> Any:
        if self._size > self._most:
            return _GONE
        message = await self._receive()
        self._size += len(message.get("body") or b"")
        if self._size > self._most:
            await self.refuse()
            return _GONE
        return message

    async def send(self, message: Any) -> None:
        if self._size <= self._most:
            self._begun = True
            await self._send(message)
