"""For the tests of the wrapper around the application: a real meter, and calls as engines make them."""

import ast
import asyncio
from types import SimpleNamespace

from mooring.application.model import Application
from mooring.instrument.meter import Lines, Meter
from mooring.instrument.wrap import wrap
from mooring.logs.access.line import formatter
from mooring.logs.access.parts import Format
from mooring.scoreboard.row import Row
from mooring.system.address import Address

TCP = Address("tcp", "127.0.0.1", 8000)


class Log(list):
    """The lines that were written: texts, or whole entries (form "all"). `meter` is what writes them."""

    def __init__(self, name="uvicorn", wanted=None, nameless="-"):
        self.full = False  # a log without room
        self.parse = str
        form = formatter(name) if name != "all" else Format(self._entry, headers=True, ids=True)
        self.meter = Meter(Row(), Lines(form, self._write, wanted, nameless))

    def _entry(self, entry):
        self.parse = ast.literal_eval
        return repr(entry)

    def _write(self, line, now):
        if not self.full:
            self.append(self.parse(line.decode()))
        return not self.full


def wrapped(
    call,
    interface="asgi",
    *,
    log=None,
    meter=None,
    root="",
    allowed=("127.0.0.1",),
    binds=(TCP,),
    request_id=None,
    trace=False,
):
    """As a worker wraps it; without a log or a meter, with a row that nobody looks at."""
    settings = SimpleNamespace(
        root_path=root, forwarded_allow_ips=allowed, request_id=request_id, trace_context=trace
    )
    plan = SimpleNamespace(settings=settings, binds=binds)
    meter = meter or (log.meter if log is not None else Meter(Row()))
    return wrap(Application(call, interface, "", "main:app"), plan, meter)


def http(path="/", **more):
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"x")],
        "client": ("9.9.9.9", 5000),
        "server": ("127.0.0.1", 8000),
        "extensions": {"http.response.pathsend": {}},
        **more,
    }


async def ok(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def call(app, scope, receive=None):
    """Run one ASGI call; what it sent."""
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def only(lines):
    [line] = lines
    return line


def websocket(**more):
    return {**http("/ws"), "type": "websocket", "scheme": "ws", "subprotocols": [], **more}


def environ(path="/", **more):
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "9.9.9.9",
        "REMOTE_PORT": "5000",
        "wsgi.url_scheme": "http",
        **more,
    }


def hello(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


class Server:
    """A start_response, and the loop of a server around it."""

    def __init__(self, write=None):
        self.calls = []
        self.write = write

    def __call__(self, *args):
        self.calls.append(args)
        return self.write

    def run(self, app, env, parts=None):
        """The body of a response, up to `parts` parts of it."""
        body = app(env, self)
        got = []
        try:
            for part in body:
                got.append(part)
                if len(got) == parts:
                    break
        finally:
            if hasattr(body, "close"):
                body.close()
        return got


class Body:
    """An iterable that tells what happens to it."""

    def __init__(self, *parts, fail=None):
        self.parts = iter(parts)
        self.fail = fail
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        for part in self.parts:
            return part
        if self.fail:
            raise self.fail
        raise StopIteration

    def close(self):
        self.closed += 1


def streaming(body, status="200 OK"):
    def app(environ, start_response):
        start_response(status, [])
        return body

    return app


class FileWrapper:
    """As gunicorn's: it is sent by sendfile if it is still this class."""

    def __init__(self, filelike):
        self.filelike = filelike
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        raise AssertionError("read in Python")
