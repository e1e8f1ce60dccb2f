"""The plain WSGI application of the HTTP matrix: the routes of plain_asgi.py that WSGI can have."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl


def app(environ, start_response):
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    name = environ["PATH_INFO"].rpartition("/")[2]
    return ROUTES.get(name, _missing)(environ, start_response, query)


def _answer(start_response, body, status="200 OK", headers=()):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    start_response(status, [("Content-Length", str(len(body))), *headers])
    return [body]


def _gate(path):
    while not os.path.exists(path):
        time.sleep(0.01)


def _digest(environ, start_response, query):
    size, digest = 0, hashlib.sha256()
    while piece := environ["wsgi.input"].read(65536):
        size += len(piece)
        digest.update(piece)
    return _answer(start_response, {"size": size, "sha256": digest.hexdigest()})


def _stream(environ, start_response, query):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first\n"
    _gate(query["gate"])
    yield b"last\n"


def _scope(environ, start_response, query):
    headers = [[k[5:].lower().replace("_", "-"), v] for k, v in environ.items() if k.startswith("HTTP_")]
    seen = {
        "path": environ["PATH_INFO"],
        "root_path": environ["SCRIPT_NAME"],
        "scheme": environ["wsgi.url_scheme"],
        "http_version": environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
        "method": environ["REQUEST_METHOD"],
        "query": environ.get("QUERY_STRING", ""),
        "client": [environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")],
        "headers": headers,
        "pid": os.getpid(),
    }
    return _answer(start_response, seen)


def _cookies(environ, start_response, query):
    headers = [("Set-Cookie", "a=1"), ("X-Between", "-"), ("Set-Cookie", "b=2")]
    return _answer(start_response, b"two", headers=headers)


def _slow(environ, start_response, query):
    print("in flight", query["gate"], file=sys.stderr, flush=True)
    _gate(query["gate"])
    return _answer(start_response, b"done")


def _raise(environ, start_response, query):
    raise ValueError("the application raised")


def _break(environ, start_response, query):
    start_response("200 OK", [])
    yield b"first\n"
    raise ValueError("the application broke off")


def _missing(environ, start_response, query):
    return _answer(start_response, b"nothing here", "404 Not Found")


class _Endless:
    """A body without end; its close() marks that the server has given up on it."""

    def __init__(self, mark):
        self.mark, self.sent = mark, 0

    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(0.01)
        self.sent += 1
        return b"x" * 1024

    def close(self):
        Path(self.mark).write_text(f"stopped after {self.sent}")


def _endless(environ, start_response, query):
    start_response("200 OK", [])
    return _Endless(query["mark"])


ROUTES = {
    "digest": _digest,
    "stream": _stream,
    "cookies": _cookies,
    "slow": _slow,
    "raise": _raise,
    "break": _break,
    "endless": _endless,
    "scope": _scope,
    "": _scope,
}
