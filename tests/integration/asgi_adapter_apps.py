"""Applications for test_engine_asgi_adapters.py that run on asyncio and on trio alike."""

from __future__ import annotations

import anyio


def log(text):
    print("APP", text, flush=True)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            log(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await websocket(scope, receive, send)
    else:
        await http(scope, receive, send)


async def http(scope, receive, send):
    async def answer(body):
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    path = scope["path"]
    if path == "/echo":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await answer(body)
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await anyio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
    elif path == "/slow":
        log("slow started")
        await anyio.sleep(float(scope["query_string"] or b"1"))
        await answer(b"slow")
    elif path == "/large":
        await answer(b"x" * 8_000_000)
        log("large answered")
    elif path == "/disconnect":
        await receive()
        log("waiting for the disconnect")
        log(f"{(await receive())['type']}")
    elif path == "/raise":
        raise ValueError("the application raised")
    else:
        shown = [scope["http_version"], scope["scheme"], scope["path"], str(scope.get("client") is not None)]
        await answer(" ".join(shown).encode())


async def websocket(scope, receive, send):
    await receive()
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    log("websocket accepted")
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            log(f"websocket disconnect {message['code']}")
            if scope["path"] == "/stays":
                await anyio.sleep(1000)
            return
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "asked"})
        elif message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


def database():
    raise ValueError("no database")


async def failing(scope, receive, send):
    """As Starlette: it tells, with the traceback, and raises."""
    if scope["type"] == "lifespan":
        await receive()
        try:
            database()
        except ValueError:
            import traceback

            await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
            raise


async def failing_quietly(scope, receive, send):
    """As Quart: it tells in one line, and returns."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})


async def raising(scope, receive, send):
    """By the specification, an exception means that lifespan is not supported."""
    if scope["type"] == "lifespan":
        await receive()
        database()
    await http(scope, receive, send)


async def refusing(scope, receive, send):
    assert scope["type"] == "http"
    await http(scope, receive, send)


async def returning(scope, receive, send):
    if scope["type"] == "http":
        await http(scope, receive, send)


async def failing_shutdown(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "cannot flush"})
        raise ValueError("cannot flush")


async def stuck_shutdown(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log("shutting down")
        await anyio.sleep(1000)


async def slow_startup(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        log("starting")
        await anyio.sleep(1000)


def wsgi_empty(environ, start_response):
    """As Flask answers HEAD, 204 and 304: no chunk at all."""
    log(f"ran {environ['REQUEST_METHOD']}")
    start_response("204 No Content", [("x-empty", "yes")])
    return []
