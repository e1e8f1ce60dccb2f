"""Applications for the engines' tests: one ASGI, one WSGI, with the same routes, and some that fail."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time


def _log(text: str) -> None:
    os.write(1, f"APP {text}\n".encode())


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            _log(message["type"])
            if message["type"] == "lifespan.startup":
                scope["state"]["made"] = "in lifespan"
                await send({"type": "lifespan.startup.complete"})
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    else:
        await _http(scope, receive, send)


async def _body(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _http(scope, receive, send):
    path = scope["path"]

    async def answer(body, status=200, headers=()):
        headers = [(b"content-length", str(len(body)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    if path == "/echo":
        await answer(await _body(receive))
    elif path == "/stream":
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        for number in range(5):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b""})
    elif path == "/slow":
        _log("slow started")
        await asyncio.sleep(float(scope["query_string"] or b"1"))
        await answer(b"slow")
    elif path == "/stuck":
        _log("stuck started")
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                _log("refused to be cancelled")
    elif path == "/after":
        await answer(b"after")
        await asyncio.sleep(0.5)
        _log("after finished")
    elif path == "/bare":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"bare"})
    elif path == "/cookies":
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await answer(
            json.dumps([v.decode("latin-1") for k, v in scope["headers"] if k == b"cookie"]).encode(),
            headers=headers,
        )
    elif path == "/task":
        message = await asyncio.create_task(receive())
        await asyncio.create_task(send({"type": "http.response.start", "status": 200, "headers": []}))
        await send({"type": "http.response.body", "body": message["type"].encode()})
    elif path == "/raise":
        raise ValueError("the application raised")
    else:
        shown = {k: v for k, v in scope.items() if k not in {"extensions"}}
        shown["pid"] = os.getpid()
        await answer(json.dumps(shown, default=lambda v: v.decode("latin-1")).encode())


async def _websocket(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    subprotocol = scope["subprotocols"][0] if scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    if scope["path"] == "/pending":  # closes while another task waits for a message
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0.05)
        await send({"type": "websocket.close", "code": 4001, "reason": "done"})
        _log(f"pending got {(await waiting)['code']}")
        return
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            _log(f"websocket {message['code']}")
            try:
                await send({"type": "websocket.send", "text": "too late"})
            except OSError:
                _log("OSError after disconnect")
            return
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "asked"})
        elif message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def failing(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        try:
            raise ValueError("no database")
        except ValueError:
            import traceback

            await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
            raise


async def without_lifespan(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"without"})


async def stuck_shutdown(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(1000)


async def slow_startup(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        _log("starting")
        await asyncio.sleep(1000)


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]

    def answer(body, *headers):
        start_response("200 OK", [("content-length", str(len(body))), *headers])
        return [body]

    if path == "/echo":
        return answer(environ["wsgi.input"].read())
    if path == "/parts":
        data = environ["wsgi.input"]
        parts = [data.read(3), data.readline(), data.readline(2), *data]
        return answer(json.dumps([part.decode() for part in parts]).encode())
    if path == "/stream":
        start_response("200 OK", [("content-type", "text/plain")])
        return (b"%d\n" % number for number in range(5))
    if path == "/generator":
        return _generator(start_response)
    if path == "/write":
        write = start_response("201 Created", [])
        write(b"written ")
        return [b"returned"]
    if path == "/replaced":
        start_response("200 OK", [])
        start_response("503 Service Unavailable", [], (ValueError, ValueError(), None))
        return [b"replaced"]
    if path == "/twice":
        start_response("200 OK", [])
        start_response("200 OK", [])
        return [b""]
    if path == "/slow":
        _log("slow started")
        time.sleep(float(environ["QUERY_STRING"] or "1"))
        return answer(b"slow")
    if path == "/closing":
        return _Closing(start_response)
    if path == "/raise":
        raise ValueError("the application raised")
    if path == "/cookies":
        return answer(
            json.dumps(environ.get("HTTP_COOKIE")).encode(), ("set-cookie", "a=1"), ("set-cookie", "b=2")
        )
    shown = {k: v for k, v in environ.items() if isinstance(v, str | int | bool | tuple)}
    shown["pid"] = os.getpid()
    return answer(json.dumps(shown).encode())


def _generator(start_response):
    start_response("418 I'm a teapot", [("x-from", "generator")])
    yield b"from a "
    yield b"generator"


class _Closing:
    def __init__(self, start_response):
        start_response("200 OK", [("content-length", "2")])

    def __iter__(self):
        yield b"ok"

    def close(self):
        time.sleep(0.3)
        _log("closed")


if os.environ.get("FAIL_IMPORT") == "engine_apps":
    print("importing", file=sys.stderr)
    raise RuntimeError("no such luck")
