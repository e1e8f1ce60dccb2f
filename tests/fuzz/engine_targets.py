"""Targets of targets.py that are mooring's part of the engines: hypercorn's heads and chunks, gunicorn's
bodies and reasons, a request's environ on granian, in C as in Python.
"""

from __future__ import annotations

import types
from collections import deque
from types import SimpleNamespace

from gunicorn.config import Config as GunicornConfig
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader
from hypercorn import events
from hypercorn.config import Config as HypercornConfig
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError

from mooring.engines.granian.bodies import Parking
from mooring.engines.granian.request import RefusedError, Rules, environ_of, scheduler
from mooring.engines.gunicorn.refused import reason_of
from mooring.engines.gunicorn.requests import Upload
from mooring.engines.hypercorn import http1, streams, websocket
from mooring.scoreboard.row import REFUSALS

MAX_HEAD, MAX_FIELDS, MAX_BODY = 2048, 20, 1000


def pieces(data: bytes, digits: int = 3):
    """A connection's bytes as they come: a text `*NUMBER` repeats the piece before it."""
    found = data.split(b"\0")
    for piece, then in zip(found, [*found[1:], b""], strict=True):
        if piece and not piece.startswith(b"*"):
            times = then[1 : 1 + digits] if then.startswith(b"*") else b"1"
            yield from [piece] * (int(times) if times.isdigit() else 1)


# -- hypercorn ---------------------------------------------------------------------------------------------

_limits = SimpleNamespace(max_head=MAX_HEAD, max_fields=MAX_FIELDS, max_body=MAX_BODY)
http1.install(_limits)
streams.install(MAX_BODY)
websocket.install()


class _Event:
    """Waits for nobody: what waits is not run on."""

    async def clear(self) -> None:
        pass

    async def wait(self) -> None:
        await _forever()

    set = clear


@types.coroutine
def _forever():
    yield


class _Context:
    event_class = _Event
    terminated = SimpleNamespace(is_set=lambda: False)

    async def mark_request(self) -> None:
        pass


class _Connection:
    """What stands for hypercorn's TCPServer: it notes what was sent, and why the client was refused."""

    def __init__(self) -> None:
        self.refused, self.closed, self.got = "", False, deque()

    async def send(self, event) -> None:
        self.closed = self.closed or isinstance(event, events.Closed)

    async def refuse(self, reason: str, status: int = 0, _detail: str = "") -> None:
        assert reason in REFUSALS
        assert status in (0, 400, 413, 431)
        self.refused = reason

    async def spawn_app(self, *_what):
        async def put(message) -> None:
            self.got.append(message)

        return put


def _run(coroutine) -> bool:
    """Whether it has run to its end; else it waits for the end of a request before it reads the next."""
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    coroutine.close()
    return False


_hypercorn = HypercornConfig()


def hypercorn_head(data: bytes) -> None:
    """Pieces of a connection's bytes: no error comes out, and the application gets what the limits let."""
    connection = _Connection()
    protocol = http1.LimitedH11Protocol(
        *(None, _hypercorn, _Context(), connection, {}, False, ("127.0.0.1", 1), ("127.0.0.1", 2)),
        connection.send,
    )
    came, reads = 0, True
    for piece in pieces(data, 2):
        if connection.refused or connection.closed or not reads:
            break
        came += len(piece)
        try:
            reads = _run(protocol.handle(events.RawData(data=piece)))
        except (H2CProtocolRequiredError, H2ProtocolAssumedError):
            return  # another protocol from here on
        scope = getattr(protocol.stream, "scope", None)
        if scope and not connection.refused:
            assert len(scope["headers"]) <= MAX_FIELDS
            names = [name for name, _ in scope["headers"]]
            assert names.count(b"host") <= 1
            assert not (b"content-length" in names and b"transfer-encoding" in names)
            size = sum(len(name) + len(value) + 2 for name, value in scope["headers"])
            assert size <= MAX_HEAD, size
        body = sum(len(each.get("body", b"")) for each in connection.got if each["type"] == "http.request")
        assert body <= MAX_BODY
        brought = http1._SHARE * MAX_BODY + MAX_HEAD + 2 * http1._READ + len(piece)
        alone = protocol.keep_alive_requests <= 1 and protocol.stream is not None
        assert not alone or came <= brought + MAX_HEAD + MAX_BODY, "bytes that are no body, without end"


# -- gunicorn ----------------------------------------------------------------------------------------------

_gunicorn = GunicornConfig()
_AHEAD = 16_384  # bytes that gunicorn may have read with a head


class _Source(Unreader):
    """What gunicorn reads from, without a socket."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._pieces = deque(pieces(data, 2))

    def chunk(self, size_hint=None) -> bytes:
        return self._pieces.popleft() if self._pieces else b""


class _Socket:
    def gettimeout(self) -> None:
        return None

    settimeout = sendall = shutdown = lambda *_: None

    def recv(self, _size: int) -> bytes:
        return b""


def gunicorn_body(data: bytes) -> None:
    """A request: what cannot be parsed has a reason, and its body is at most as large as the limit."""
    told: list[str] = []
    serving = SimpleNamespace(
        plan=SimpleNamespace(settings=SimpleNamespace(max_body=MAX_BODY), tls=False),
        refused=lambda reason, _peer, _detail: told.append(reason),
    )
    source = _Source(data)
    longest = max(map(len, source._pieces), default=0)
    try:
        request = Request(_gunicorn, source, ("127.0.0.1", 1))
        if (getattr(request.body.reader, "length", None) or 0) > MAX_BODY:
            return  # refused at its head
        Upload(request, _Socket(), ("127.0.0.1", 1), serving, lambda: None, lambda: None)
        read = 0
        while part := request.body.read(64):
            read += len(part)
        # what came with the head was not counted: the announced length of that is looked at before
        assert read <= MAX_BODY + longest + _AHEAD, read
    except ParseException as error:
        told.append(reason_of(error))
    except ConnectionResetError:
        assert told == ["body_size"]
    except (NoMoreData, StopIteration):
        pass
    assert all(reason in REFUSALS for reason in told), told


# -- granian -----------------------------------------------------------------------------------------------


class _Proto:
    def send(self, _message) -> None:
        pass


def _environs():
    """C's way from a scope to an environ: a function that returns it, or what was refused."""
    got: list[object] = []
    rules = object.__new__(Rules)
    rules.fields, rules.waiting = MAX_FIELDS, deque()
    rules.refused = lambda *told: got.append(told[0])
    rules.connections = None
    rules.parking, rules.sendings = Parking(1, 0, rules.refused, lambda: None), set()
    schedule = scheduler(lambda _exchange, environ: got.append(environ), 1, rules)

    def environ(scope):
        got.clear()
        schedule(SimpleNamespace(scope=scope, proto=_Proto(), err=got.append))
        return got[0]

    return environ


_in_c = _environs()


def granian_environ(data: bytes) -> None:
    """Path, query, and lines of fields: C and Python make the same environ, and refuse the same."""
    path, query, fields = [*data.split(b"\0", 2), b"", b""][:3]
    headers = []
    for line in fields.split(b"\n")[:40]:
        name, colon, value = line.partition(b":")
        if colon and name and all(33 <= byte < 127 for byte in name):  # hyper takes no other
            headers.append((name.lower(), value.strip()))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "raw_path": path,
        "query_string": query,
        "client": ("127.0.0.1", "5"),
        "server": ("127.0.0.1", "6"),
        "headers": headers,
    }
    for version in ("1.1", "2"):
        scope["http_version"] = version
        try:
            expected = environ_of(scope, MAX_FIELDS)
        except RefusedError as error:
            expected = error.reason
        assert isinstance(expected, dict) or expected in REFUSALS
        found = _in_c(scope)
        if isinstance(found, dict):
            found.pop("wsgi.input", None)
        assert found == expected, (found, expected)
