"""The plain ASGI application of the HTTP matrix: no framework, so that what is tested is the engine.

Runs on asyncio and trio. Gates and marks are files whose paths come in the query: the test opens a gate when
it has seen what it waits for, and reads a mark when the application has seen what it tells.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from urllib.parse import parse_qsl

import anyio


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    query = dict(parse_qsl(scope["query_string"].decode()))
    name = scope["path"].rpartition("/")[2]
    if scope["type"] == "websocket":
        return await SOCKETS.get(name, _ws_echo)(scope, receive, send, query)
    return await ROUTES.get(name, _missing)(scope, receive, send, query)


async def _lifespan(receive, send):
    marks = os.environ.get("LIFESPAN_MARKS")
    while True:
        kind = (await receive())["type"]
        if marks:
            with open(marks, "a") as file:
                file.write(kind + "\n")
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def failing(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})


async def _start(send, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _answer(send, body, status=200, headers=()):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    await _start(send, status, [(b"content-length", b"%d" % len(body)), *headers])
    await send({"type": "http.response.body", "body": body})


async def _gate(path):
    while not os.path.exists(path):
        await anyio.sleep(0.01)


async def _digest(scope, receive, send, query):
    size, digest, more = 0, hashlib.sha256(), True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    await _answer(send, {"size": size, "sha256": digest.hexdigest()})


async def _stream(scope, receive, send, query):
    await _start(send, headers=[(b"content-type", b"text/plain")])
    await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
    await _gate(query["gate"])
    await send({"type": "http.response.body", "body": b"last\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _scope(scope, receive, send, query):
    seen = {key: scope.get(key) for key in ("path", "root_path", "scheme", "http_version", "method", "type")}
    seen["raw_path"] = (scope.get("raw_path") or b"").decode("latin-1")
    seen["query"] = scope["query_string"].decode("latin-1")
    seen["client"] = scope["client"] and list(scope["client"])
    seen["headers"] = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
    seen["pid"] = os.getpid()
    await _answer(send, seen)


async def _cookies(scope, receive, send, query):
    await _answer(
        send, b"two", headers=[(b"set-cookie", b"a=1"), (b"x-between", b"-"), (b"set-cookie", b"b=2")]
    )


async def _slow(scope, receive, send, query):
    print("in flight", query["gate"], file=sys.stderr, flush=True)
    await _gate(query["gate"])
    await _answer(send, b"done")


async def _raise(scope, receive, send, query):
    raise ValueError("the application raised")


async def _break(scope, receive, send, query):
    await _start(send)
    await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
    raise ValueError("the application broke off")


async def _missing(scope, receive, send, query):
    await _answer(send, b"nothing here", 404)


async def _leave(scope, receive, send, query):
    """Waits for the client to leave, and marks what it was told."""
    print("waiting", query["mark"], file=sys.stderr, flush=True)
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    Path(query["mark"]).write_text(message["type"])


async def _endless(scope, receive, send, query):
    """Streams until the client leaves, as frameworks do it: one task listens, the other is cancelled."""
    sent = 0

    async def stream():
        nonlocal sent
        await _start(send)
        while True:
            sent += 1
            await send({"type": "http.response.body", "body": b"x" * 1024, "more_body": True})
            await anyio.sleep(0.01)

    async def listen():
        while (await receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(stream)
            group.start_soon(listen)
    except BaseExceptionGroup:  # a send after the client has left may raise OSError (ASGI 2.4)
        pass
    finally:
        Path(query["mark"]).write_text(f"stopped after {sent}")


async def _ws_echo(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            if "mark" in query:
                Path(query["mark"]).write_text(str(message["code"]))
            return
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def _ws_close(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    await send({"type": "websocket.close", "code": 4001, "reason": "enough"})


async def _ws_deny(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.close"})


async def _ws_scope(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.accept"})
    seen = {key: scope[key] for key in ("path", "scheme", "root_path")}
    seen["client"] = scope["client"] and list(scope["client"])
    await send({"type": "websocket.send", "text": json.dumps(seen)})
    await receive()  # until the client leaves


ROUTES = {
    "digest": _digest,
    "stream": _stream,
    "cookies": _cookies,
    "slow": _slow,
    "raise": _raise,
    "break": _break,
    "leave": _leave,
    "endless": _endless,
    "scope": _scope,
    "": _scope,
}
SOCKETS = {"close": _ws_close, "deny": _ws_deny, "scope": _ws_scope}
