"""The applications that the harness serves where a test brings none: no framework, for a fast start."""

ASGI_APP = """
import asyncio, json, os, signal, sys
from urllib.parse import parse_qs

VERSION = "1"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
    status, body = 200, "hello"
    match scope["path"]:
        case "/pid":
            body = str(os.getpid())
        case "/version":
            body = VERSION
        case "/env":
            body = json.dumps(dict(os.environ))
        case "/slow":  # announces that it is in flight, then answers after s seconds
            print("in flight", file=sys.stderr, flush=True)
            await asyncio.sleep(float(query["s"]))
        case "/who":
            ids = {"uid": os.getuid(), "gid": os.getgid(), "groups": sorted(os.getgroups())}
            names = {"home": os.environ.get("HOME"), "user": os.environ.get("USER")}
            body = json.dumps({**ids, **names, "cwd": os.getcwd()})
        case "/":
            pass
        case _:
            status, body = 404, "not found"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
"""

WSGI_APP = """
import os


def app(environ, start_response):
    body = {"/pid": str(os.getpid())}.get(environ["PATH_INFO"], "hello").encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
