"""What stands in C and in Python: the same in both, or nothing is done in C and the log says why."""

from __future__ import annotations

import asyncio
import logging
import struct
import types

import pytest
from wrapping import environ, hello

from mooring.instrument import asgi, asgi_line, wsgi, wsgi_line
from mooring.instrument.meter import Lines, Meter, table
from mooring.logs.access import parts
from mooring.logs.access.line import formatter
from mooring.scoreboard import accelerator, ring
from mooring.scoreboard.row import Row

pytestmark = pytest.mark.skipif(accelerator.c is None, reason="mooring was installed without a compiler")

_SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "http_version": "1.1",
    "client": ("127.0.0.1", 5000),
    "headers": [],
}
_ENTRY = (
    *("HOST", "PORT", "METHOD", "TARGET", "VERSION", "STATUS", "SIZE", "SECONDS", "REFERER", "AGENT"),
    *("REQUEST_ID", "TRACE_ID", "EXTRA"),
)
_EXCHANGE = ("SEND", "SCOPE", "PATH", "QUERY", "BEGAN", "BASE", "PLACE", "IDS", "SIZE", "OPENING", "DONE")
# Its twin, its name in C, where Python has it.
CONSTANTS = [
    *(("ring", name, ring, f"_{name}") for name in ("HEAD", "TAIL", "MOST")),
    *(("row", name, accelerator, name) for name in ("CLASSES", "RECORD")),
    *(("line", name, parts, name) for name in ("LONGEST", "ENTRY", *_ENTRY)),
    *(("asgi_line", name, asgi_line, name) for name in ("EXCHANGE", *_EXCHANGE)),
    *(("asgi_line", name, asgi_line, name) for name in ("HOST_LIMIT", "HOST_OTHERS")),
    *(("wsgi_line", name, wsgi_line, name) for name in ("TARGET_LIMIT", "AGENT_LIMIT")),
    *(("wsgi_line", name, wsgi_line, name) for name in ("HOST_LIMIT", "HOST_OTHERS")),
    ("wsgi_line", "PCHAR", wsgi_line, "_PCHAR"),
    ("asgi", "FAILED", asgi, "FAILED"),
    ("asgi", "ID_COUNT", asgi, "NO_IDS"),
    ("wsgi", "FAILED", wsgi, "FAILED"),
    ("wsgi", "ID_COUNT", wsgi, "_NO_IDS"),
]


def _other(value):
    if isinstance(value, struct.Struct):
        return struct.Struct("dd104s")
    if isinstance(value, int | float):
        return type(value)(value * 2 + 1)
    return (*value, "-") if isinstance(value, tuple) else f"{value}~"


def _serve(half):
    """One request: the function that served it, and its line."""
    rings, row = ring.Rings(), Row()
    meter = Meter(row, Lines(formatter("combined"), ring.writer(rings.fd, 0, rings.wake)))

    async def application(_scope, _receive, send):
        begin, end = table(row)  # as a WebSocket's beside it
        end(begin(64, b"/", 1.0))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def send(_message):
        pass

    if half == "asgi":
        served = asgi.wrap_asgi(application, lambda _scope: None, "", meter)
        asyncio.run(served(dict(_SCOPE), None, send))
    else:
        served = wsgi.wrap_wsgi(hello, lambda _environ: None, "", meter)
        list(served(environ(), lambda *_: None))
    assert row.in_flight_count() == 0
    rings.give(0)
    reader = ring.Reader(rings.fd)
    reader.indices()
    found = reader.take(0)
    rings.close()
    return served, found


_REFUSE = accelerator.refuse  # before any test has begun: conftest.py replaces it


@pytest.fixture
def as_in_a_worker(monkeypatch):
    """Let `refuse` log, and C come back when the test has ended."""
    monkeypatch.setattr(accelerator, "refuse", _REFUSE)
    monkeypatch.setattr(accelerator, "c", accelerator.c)


def test_all_agree():
    writers = ring.Rings()
    assert isinstance(ring.writer(writers.fd, 0, writers.wake), accelerator.c.Writer)
    writers.close()
    assert asgi._accelerated(Meter(Row())) is not None
    assert isinstance(_serve("wsgi")[0], accelerator.c.Wsgi)
    assert b'"GET / HTTP/1.1" 200 5' in _serve("asgi")[1]
    assert accelerator.c is not None


def test_every_constant_of_c_is_tried_here():
    known = {(twin, name) for twin, constants in accelerator.c.constants.items() for name in constants}
    assert {(twin, name) for twin, name, _, _ in CONSTANTS} == known


@pytest.mark.usefixtures("as_in_a_worker")
@pytest.mark.parametrize(
    ("twin", "name", "where", "attribute"), CONSTANTS, ids=[f"{each[0]}.{each[1]}" for each in CONSTANTS]
)
def test_one_that_differs_ends_the_use_of_c(monkeypatch, caplog, twin, name, where, attribute):
    halves = {"asgi": ["asgi"], "asgi_line": ["asgi"], "wsgi": ["wsgi"], "wsgi_line": ["wsgi"]}
    monkeypatch.setattr(where, attribute, _other(getattr(where, attribute)))
    for half in halves.get(twin, ["asgi", "wsgi"]):
        served, lines = _serve(half)
        assert isinstance(served, types.FunctionType)
        assert lines.count(b"\n") == 1
        assert accelerator.c is None
    said = [record.getMessage() for record in caplog.records if record.name == "mooring"]
    assert len(said) == 1
    assert f"{twin}.{name}: " in said[0]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.usefixtures("as_in_a_worker")
def test_websockets_go_the_same_way_as_requests(monkeypatch):
    """Each way has its own idea of which places of the row are free: one row, one way."""
    found = []

    def wrapped(*_):
        found.append(accelerator.c)

    monkeypatch.setattr(asgi, "wrap_websocket", wrapped)
    monkeypatch.setattr(asgi, "FAILED", 501)
    _serve("asgi")
    assert found == [None]


@pytest.mark.usefixtures("as_in_a_worker")
def test_c_of_a_version_without_constants_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(accelerator, "c", types.SimpleNamespace())
    assert accelerator.row(Row()) is None
    assert accelerator.c is None
    assert "row.RECORD: 'dd112s', C: None" in caplog.text


def test_in_the_unit_tests_one_that_differs_is_an_error(monkeypatch):
    monkeypatch.setattr(asgi, "FAILED", 501)
    with pytest.raises(AssertionError, match=r"asgi\.FAILED: 501, C: 500"):
        asgi.agrees()
