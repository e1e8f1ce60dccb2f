"""What the servers serve while they are attacked (benchmarks/hostile.py): as ASGI, as WSGI, and as config.ru.

`/large` is an answer larger than any kernel's buffers; a body that comes is read; a WebSocket's messages are
answered with their sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

CHUNK, CHUNKS = b"x" * 65536, 1024


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            size = len(message.get("bytes") or message.get("text") or "")
            await send({"type": "websocket.send", "text": str(size)})
        return
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    large = scope["path"] == "/large"
    size = len(CHUNK) * CHUNKS if large else 2
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(CHUNKS if large else 0):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if large else b"ok"})


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    while environ["wsgi.input"].read(65536):
        pass
    large = environ["PATH_INFO"] == "/large"
    size = len(CHUNK) * CHUNKS if large else 2
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return (CHUNK for _ in range(CHUNKS)) if large else [b"ok"]
