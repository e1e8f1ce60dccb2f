"""The wrapper with applications and clients that do not keep to the rules: nothing is counted twice or stays
in flight, and no line is forged.
"""

import asyncio
import json
from time import monotonic

import pytest
from wrapping import Body, Log, Server, call, environ, hello, http, ok, streaming, websocket, wrapped

from mooring.instrument.asgi import wrap_asgi
from mooring.instrument.limits import limit
from mooring.instrument.meter import Meter
from mooring.scoreboard.row import BUCKETS, CLASSES, HISTOGRAM, METHOD_BASE, RAISED, REQUESTS, Row

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture
def row():
    return Row()


def classes(row):
    """GET requests by status class."""
    base = METHOD_BASE["GET"]
    return {digit: row.read(base + digit) for digit in range(CLASSES) if row.read(base + digit)}


def idle(row):
    return row.in_flight(monotonic()) == [] and row.in_flight_count() == 0 and len(row.free) == REQUESTS


def test_what_is_sent_after_the_application_has_returned_is_not_counted(row):
    """By a task that it has left behind. The place in flight may be another request's by then."""
    kept = []

    async def app(scope, receive, send):
        kept.append(send)

    async def other(scope, receive, send):
        await kept[0]({"type": "http.response.start", "status": 200})
        await kept[0]({"type": "http.response.body", "body": b"late"})
        assert [request.path for request in row.in_flight(monotonic())] == ["/other"]
        await ok(scope, receive, send)

    meter = Meter(row)
    call(wrapped(app, meter=meter), http())
    call(wrapped(other, meter=meter), http("/other"))
    assert classes(row) == {2: 1, 5: 1}
    assert sum(row.cells[HISTOGRAM : HISTOGRAM + BUCKETS]) == 2
    assert idle(row)


@pytest.mark.parametrize("start", [{}, {"status": "200 OK"}, {"status": None}])
def test_a_status_that_is_none_leaves_nothing_in_flight(row, start):
    """It is the engine's to judge, and counted as a failure, since nobody can tell what that made of it."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": b"x"})

    async def headless(scope, receive, send):
        await send({"type": "http.response.start", **start})

    for number, each in enumerate((app, headless), 1):
        call(wrapped(each, meter=Meter(row)), http())
        assert classes(row) == {5: number}
        assert idle(row)


# -- messages that are not as ASGI says: the engine judges them --------------------------------------------

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body"}


class Uncertain:
    """What is neither true nor false, as an array of numpy's."""

    def __bool__(self):
        raise ValueError("ambiguous")


def sending(*messages):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (b"four", 4),
        (bytearray(b"four"), 4),
        (memoryview(b"four"), 4),
        (memoryview(b"fourfour").cast("I"), 8),
        (None, 0),
        ("text", 0),
        (7, 0),
        ([1, 2], 0),
    ],
)
def test_any_body_goes_to_the_engine_and_what_can_be_counted_is(row, body, size):
    log = Log("all")
    messages = [START, {**BODY, "body": body}]
    assert call(wrapped(sending(*messages), log=log), http()) == messages
    [entry] = log
    assert entry[5:7] == (200, size)
    assert idle(log.meter.row)


@pytest.mark.parametrize("more", [None, "", 0, [], Uncertain()])
def test_an_odd_more_body_ends_the_response_or_is_left_to_the_engine(row, more):
    messages = [START, {**BODY, "body": b"x", "more_body": more}]
    assert call(wrapped(sending(*messages), meter=Meter(row)), http()) == messages
    assert classes(row) == {2: 1}
    assert idle(row)


@pytest.mark.parametrize(
    "odd", [{}, {"type": None}, {"type": ["x"]}, [], 7, None, {"type": "http.response.pathsend"}]
)
@pytest.mark.parametrize("limited", [False, True])
def test_a_message_that_is_none_goes_to_the_engine(row, odd, limited):
    app = sending(START, odd, BODY)
    if limited:
        app = limit(app, "asgi", row, 0, 60.0)
    assert call(wrapped(app, meter=Meter(row)), http()) == [START, odd, BODY]
    assert classes(row) == {2: 1}
    assert idle(row)


@pytest.mark.parametrize("start", [{**START, "status": 200.0}, {**START, "status": "200"}])
def test_a_status_that_is_a_number_otherwise_is_one(row, start):
    assert call(wrapped(sending(start, BODY), meter=Meter(row)), http()) == [start, BODY]
    assert classes(row) == {2: 1}


@pytest.mark.parametrize("status", [10**30, -1, 1000, "200 OK", b"2x", None, float("nan")])
def test_any_status_goes_to_the_engine(row, status):
    start = {**START, "status": status}
    assert call(wrapped(sending(start, BODY), log=(log := Log())), http()) == [start, BODY]
    assert " 500" in log[0]
    assert idle(log.meter.row)


@pytest.mark.parametrize(
    "headers", [None, 7, [None], [7], [(b"a",)], [("a", "b")], [(b"a", b"b", b"c")], b"x"]
)
@pytest.mark.parametrize("form", ["common", "combined", "uvicorn", "json", "%(h)s %({a}o)s", "%(b)s"])
@pytest.mark.parametrize("drains", [False, True])
def test_odd_headers_go_to_the_engine(form, headers, drains):
    log = Log(form)
    if drains:
        log.meter.drain.begin()
    app = wrapped(sending({**START, "headers": headers}, BODY), log=log, request_id="x-request-id")
    start, body = call(app, http())
    for header in headers if isinstance(headers, list) else ():
        assert header in start["headers"]
    assert body == BODY
    assert len(log) == 1
    assert idle(log.meter.row)


def test_odd_headers_do_not_hide_an_id_of_the_applications():
    headers = [(b"a",), [b"X-Request-Id", b"own"]]
    app = wrapped(sending({**START, "headers": headers}, BODY), request_id="x-request-id")
    assert call(app, http())[0]["headers"] == headers


@pytest.mark.parametrize("odd", [{"client": 7}, {"client": (7,)}, {"headers": None}, {"method": 7}, None])
@pytest.mark.parametrize("form", ["common", "combined", "uvicorn", "json", "%(h)s %({a}i)s"])
def test_a_scope_that_the_application_has_spoilt_has_a_line(form, odd):
    async def app(scope, receive, send):
        scope.clear() if odd is None else scope.update(odd)
        await sending(START, BODY)(scope, receive, send)

    log = Log(form)
    assert call(wrapped(app, log=log), http("/here")) == [START, BODY]
    assert len(log) == 1
    assert idle(log.meter.row)


def test_an_odd_last_message_that_the_engine_refuses_is_a_500(row):
    async def refuses(message):
        if message.get("body", b"") is None:
            raise TypeError("the engine's")

    app = wrapped(sending(START, {**BODY, "body": None}), meter=Meter(row))
    with pytest.raises(TypeError, match="the engine's"):
        asyncio.run(app(http(), None, refuses))
    assert classes(row) == {5: 1}
    assert row.read(RAISED) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {},
        7,
        {"type": "websocket.http.response.start"},
        {"type": "websocket.http.response.start", "status": "x"},
        {"type": "websocket.accept", "headers": 7},
        {"type": "websocket.accept", "headers": [None]},
        {"type": ["x"]},
    ],
)
def test_an_odd_message_of_a_websocket_goes_to_the_engine(row, odd):
    app = wrapped(sending(odd), meter=Meter(row), request_id="x-request-id")
    [sent] = call(app, websocket())
    assert sent == odd or None in sent["headers"]
    assert idle(row)


def test_a_failure_before_the_application_leaves_nothing_in_flight(row):
    def believe(scope):
        raise LookupError

    with pytest.raises(LookupError):
        call(wrap_asgi(ok, believe, "", Meter(row)), http())
    assert classes(row) == {5: 1}
    assert idle(row)


@pytest.mark.parametrize("status", ["403 Forbidden", None, 0])
def test_a_refused_handshake_whose_status_is_none_leaves_nothing_in_flight(row, status):
    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": status})

    assert call(wrapped(app, meter=Meter(row)), websocket())
    assert idle(row)


def test_a_failure_before_a_handshake_leaves_nothing_in_flight(row):
    def believe(scope):
        raise LookupError

    with pytest.raises(LookupError):
        call(wrap_asgi(ok, believe, "", Meter(row)), websocket())
    assert idle(row)
    assert row.read(METHOD_BASE["WEBSOCKET"] + 5) == 1


# -- clients that leave ------------------------------------------------------------------------------------


class Engine:
    """A `receive` as uvicorn's: what is there at once, then what never comes."""

    def __init__(self, *kinds):
        self.kinds = list(kinds)
        self.waits = 0

    async def __call__(self):
        if not self.kinds:
            self.waits += 1
            await asyncio.get_running_loop().create_future()
        kind = self.kinds.pop(0) if len(self.kinds) > 1 else self.kinds[0]
        return {"type": kind, "body": b"", "more_body": True}


async def silent(scope, receive, send):
    pass


async def failing(scope, receive, send):
    raise OSError("the client has left")


async def headless(scope, receive, send):
    await send({"type": "http.response.start", "status": 206})


@pytest.mark.parametrize(
    ("app", "kinds", "status", "raised"),
    [
        (silent, ["http.disconnect"], 4, 0),
        (silent, ["http.request", "http.request", "http.disconnect"], 4, 0),
        (silent, ["http.request"], 5, 1),
        (silent, [], 5, 1),
        (failing, ["http.disconnect"], 4, 1),
        (failing, [], 5, 1),
        (headless, ["http.disconnect"], 2, 0),
    ],
)
def test_no_answer_to_a_client_that_has_left_is_no_5xx(row, app, kinds, status, raised):
    engine = Engine(*kinds)
    try:
        call(wrapped(app, meter=Meter(row)), http(), engine)
    except OSError:
        assert app is failing
    assert (classes(row), row.read(RAISED)) == ({status: 1}, raised)
    assert engine.waits <= 1
    assert idle(row)


def test_an_engine_is_not_made_to_ask_for_a_body_that_nobody_wants(row):
    engine = Engine("http.disconnect")
    call(wrapped(silent, meter=Meter(row)), http(headers=[(b"expect", b"100-continue")]), engine)
    assert classes(row) == {5: 1}


def test_a_receive_that_fails_hides_nothing(row):
    async def receive():
        raise RuntimeError("the engine's")

    with pytest.raises(OSError, match="has left"):
        call(wrapped(failing, meter=Meter(row)), http(), receive)
    assert classes(row) == {5: 1}


# -- WSGI --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [b"200 OK", 200, None, ["200 OK"], "twohundred"])
def test_wsgi_a_status_that_is_none_is_a_500(row, status):
    def app(env, start_response):
        start_response(status, [])
        return [b"x"]

    wrapped(app, "wsgi", meter=Meter(row))(environ(), Server())
    assert classes(row) == {5: 1}
    assert idle(row)


@pytest.mark.parametrize("body", [[None], [b"x", 7], 7, None, ["text"], ("text",)])
def test_wsgi_a_body_that_is_none_leaves_nothing_in_flight(row, body):
    with pytest.raises(TypeError):
        Server().run(wrapped(streaming(body), "wsgi", meter=Meter(row)), environ())
    assert classes(row) == {5: 1}
    assert idle(row)


@pytest.mark.parametrize(
    ("given", "raw", "uri"),
    [
        (
            {"PATH_INFO": "/a b/\xc3\xa9", "QUERY_STRING": "q=%2F"},
            "/a%20b/%C3%A9?q=%2F",
            "/a%20b/%C3%A9?q=%2F",
        ),
        ({"PATH_INFO": "/a/b", "RAW_URI": "/a%2Fb?"}, "/a%2Fb?", "/a%2Fb?"),
        ({"PATH_INFO": "/a/b", "RAW_URI": "/a%2fb", "REQUEST_URI": "/own"}, "/a%2fb", "/own"),
    ],
)
def test_wsgi_the_application_has_the_target_as_it_was_requested(given, raw, uri):
    """Whatever becomes of SCRIPT_NAME and PATH_INFO."""
    seen = []

    def app(env, start_response):
        seen.append((env["RAW_URI"], env["REQUEST_URI"]))
        return hello(env, start_response)

    wrapped(app, "wsgi", root="/a")(environ(**given), Server())
    assert seen == [(raw, uri)]


def test_wsgi_what_fails_behind_write_has_had_its_status(row):
    def app(env, start_response):
        start_response("200 OK", [])(b"written")
        return Body(fail=LookupError())

    with pytest.raises(LookupError):
        Server(write=len).run(wrapped(app, "wsgi", meter=Meter(row)), environ())
    assert classes(row) == {2: 1}


def test_wsgi_other_bytes_are_counted():
    log = Log("all")
    for body in ([bytearray(b"four")], iter([memoryview(b"four")])):
        Server().run(wrapped(streaming(body), "wsgi", log=log), environ())
    assert [entry[6] for entry in log] == [4, 4]


def test_wsgi_what_comes_after_the_answer_is_not_counted(row):
    kept = []

    def app(env, start_response):
        kept.append(start_response)
        return hello(env, start_response)

    wsgi = wrapped(app, "wsgi", meter=Meter(row))
    for _ in range(2):
        wsgi(environ(), Server(write=len))
    assert kept[0]("404 Late", [])(b"more") == 4
    assert classes(row) == {2: 2}
    assert idle(row)


# -- forged lines ------------------------------------------------------------------------------------------

# What middleware inside an application may take from a header of the client's, as uvicorn's
# ProxyHeadersMiddleware does where it trusts everyone.
FORGED = '6.6.6.6 - - [21/Nov/2026:08:46:19 +0000] "GET /admin HTTP/1.1" 200 1 "-" "x'


@pytest.mark.parametrize(
    "host", [FORGED, '","status":200,"client":"', "a b", "x\ny", "\ud800", "\\", "\u202e"]
)
@pytest.mark.parametrize("form", ["common", "combined", "uvicorn", "json", "%(h)s|%(s)s"])
def test_a_client_cannot_forge_its_address(form, host):
    async def app(scope, receive, send):
        scope["client"] = (host, 0)
        await ok(scope, receive, send)

    log = Log(form)
    call(wrapped(app, log=log), http())
    [line] = log
    assert line.count("\n") == 1
    if form == "json":
        assert list(json.loads(line)).count("client") == 1
        assert line.count('"client":') == 1
        assert json.loads(line)["path"] == "/"
    else:
        client = line.partition("|" if "|" in form else " - ")[0]
        assert line.isascii()
        assert not set(client.replace('\\"', "")) & set(' "')


@pytest.mark.parametrize("form", ["common", "uvicorn", "json"])
def test_wsgi_a_client_cannot_forge_its_address(form):
    def app(env, start_response):
        env["REMOTE_ADDR"] = env["REMOTE_PORT"] = FORGED
        return hello(env, start_response)

    log = Log(form)
    wrapped(app, "wsgi", log=log)(environ(), Server())
    [line] = log
    assert ('" 200 1 "' if form != "json" else '"GET /admin') not in line
    assert not set(line.partition(" - ")[0].replace('\\"', "")) & set(' "') or form == "json"


def test_an_address_is_shown_as_it_is():
    log = Log("uvicorn")
    for host in ("203.0.113.7", "2001:db8::7", "fe80::1%eth0", "proxy-1.example", "_hidden"):
        call(wrapped(ok, log=log), http(client=(host, "80")))
    clients = [line.partition(" - ")[0] for line in log]
    assert clients == [
        *("203.0.113.7:80", "2001:db8::7:80", "fe80::1%eth0:80"),
        *("proxy-1.example:80", "_hidden:80"),
    ]
