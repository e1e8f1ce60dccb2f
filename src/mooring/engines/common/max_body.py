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
        begun, size = False, 0

        async def refuse() -> None:
            serving.refused("body_size", scope["client"], "")
            if not begun:
                for message in LARGE.messages():
                    await send(message)

        async def receiving() -> Any:
            nonlocal size
            if size > most:
                return _GONE
            message = await receive()
            size += len(message.get("body") or b"")
            if size > most:
                await refuse()
                return _GONE
            return message

        async def sending(message: Any) -> None:
            nonlocal begun
            if size <= most:
                begun = True
                await send(message)

        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > most:
                await refuse()
                return
        await application(scope, receiving, sending)

    return call
