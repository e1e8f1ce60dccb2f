"""What the wrapper counts: one row's cells after calls as engines make them. Lines: test_instrument.py."""

import asyncio
import sys
import threading
from bisect import bisect_left
from time import monotonic, sleep

import pytest
from wrapping import (
    Body,
    FileWrapper,
    Log,
    Server,
    call,
    environ,
    hello,
    http,
    ok,
    streaming,
    websocket,
    wrapped,
)

from mooring.instrument.meter import Lines, Meter, table
from mooring.instrument.request_exit import RequestExitError
from mooring.logs.access.line import formatter
from mooring.logs.access.rules import parse
from mooring.scoreboard.ring import Reader, Rings, writer
from mooring.scoreboard.row import (
    BOUNDS,
    BUCKETS,
    CLASSES,
    DROPPED,
    DURATIONS,
    HISTOGRAM,
    METHOD_BASE,
    METHODS,
    OVERFLOW,
    RAISED,
    REQUESTS,
    WEBSOCKETS,
    Row,
)

pytestmark = pytest.mark.usefixtures("way")


def counted(row):
    """What was counted: {(method, class): number}; checks that the histogram has counted as many."""
    found = {}
    for method in METHODS:
        for digit in range(CLASSES):
            if number := row.read(METHOD_BASE[method] + digit):
                found[method, digit] = number
    requests = sum(number for (method, _), number in found.items() if method != "WEBSOCKET")
    assert sum(row.cells[HISTOGRAM : HISTOGRAM + BUCKETS]) == requests
    return found


def idle(row):
    """Whether nothing is left of requests in flight."""
    return row.in_flight(monotonic()) == [] and row.in_flight_count() == 0 and len(row.free) == REQUESTS


def answers(status):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    return app


@pytest.fixture
def row():
    return Row()


# -- ASGI --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS[:7], "PROPFIND", "other", "WEBSOCKET", "get", ""])
def test_methods_by_name_and_the_rest_together(row, method):
    call(wrapped(ok, meter=Meter(row)), http(method=method))
    wrapped(hello, "wsgi", meter=Meter(row))(environ(REQUEST_METHOD=method), Server())
    shown = method if method in METHODS[:7] else "other"
    assert counted(row) == {(shown, 2): 2}
    assert idle(row)


def test_no_client_can_pose_as_a_websocket(row):
    """METHODS has a name that no request's method is to be found under."""
    call(wrapped(ok, meter=Meter(row)), http(method="WEBSOCKET"))
    assert counted(row) == {("other", 2): 1}


@pytest.mark.parametrize("status", [101, 200, 204, 302, 404, 499, 500, 599])
def test_statuses_by_their_class(row, status):
    call(wrapped(answers(status), meter=Meter(row)), http())
    wrapped(streaming([b"x"], f"{status} Said"), "wsgi", meter=Meter(row))(environ(), Server())
    assert counted(row) == {("GET", status // 100): 2}
    assert row.read(RAISED) == 0


@pytest.mark.parametrize("status", [0, 99, 600, 999, 10**9])
def test_a_status_that_is_none_stays_in_the_rows_bounds(row, status):
    call(wrapped(answers(status), meter=Meter(row)), http())
    assert sum(counted(row).values()) == 1
    assert {method for method, _ in counted(row)} == {"GET"}


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.12])
def test_a_duration_is_in_its_bucket_and_in_the_sum(row, seconds):
    async def app(scope, receive, send):
        await asyncio.sleep(seconds)
        await ok(scope, receive, send)

    began = monotonic()
    call(wrapped(app, meter=Meter(row)), http())
    most = monotonic() - began
    (bucket,) = [n for n in range(BUCKETS) if row.cells[HISTOGRAM + n]]
    assert bisect_left(BOUNDS, seconds) <= bucket <= bisect_left(BOUNDS, most)
    assert seconds <= row.read(DURATIONS) <= most
    assert bucket == bisect_left(BOUNDS, row.read(DURATIONS))


def test_what_hangs_is_seen_with_its_method_its_path_and_its_age(row):
    async def run():
        arrived, release = asyncio.Event(), asyncio.Event()

        async def app(scope, receive, send):
            arrived.set()
            await release.wait()
            await ok(scope, receive, send)

        async def send(message):
            pass

        path = "/caf\u00e9 " + "x" * 300
        hanging = asyncio.ensure_future(wrapped(app, meter=Meter(row))(http(path, method="POST"), None, send))
        await arrived.wait()
        began = monotonic()
        (request,) = row.in_flight(began + 60)
        assert (request.method, request.path) == ("POST", path.encode()[:112].decode())
        assert 60 <= request.age < 61
        assert row.in_flight_count() == 1
        assert counted(row) == {}
        release.set()
        await hanging

    asyncio.run(run())
    assert idle(row)
    assert counted(row) == {("POST", 2): 1}


def test_more_requests_at_once_than_the_table_holds(row):
    async def run():
        release = asyncio.Event()

        async def app(scope, receive, send):
            await release.wait()
            if scope["path"] == "/7":
                raise ValueError
            await ok(scope, receive, send)

        async def send(message):
            pass

        asgi = wrapped(app, meter=Meter(row))
        tasks = [asyncio.ensure_future(asgi(http(f"/{n}"), None, send)) for n in range(REQUESTS + 50)]
        await asyncio.sleep(0)
        assert row.in_flight_count() == REQUESTS + 50
        assert row.read(OVERFLOW) == 50
        shown = row.in_flight(monotonic())
        assert {request.path for request in shown} == {f"/{n}" for n in range(REQUESTS)}
        tasks[-1].cancel()  # beyond the table
        tasks[0].cancel()
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert row.read(OVERFLOW) == 0
    assert idle(row)
    assert counted(row) == {("GET", 2): REQUESTS + 47, ("GET", 4): 2, ("GET", 5): 1}


def test_the_end_of_the_answer_is_the_end_of_the_request(row):
    async def app(scope, receive, send):
        await ok(scope, receive, send)
        assert idle(row)
        assert counted(row) == {("GET", 2): 1}
        await asyncio.sleep(0)  # a background task
        raise ValueError

    with pytest.raises(ValueError):
        call(wrapped(app, meter=Meter(row)), http())
    assert counted(row) == {("GET", 2): 1}
    assert row.read(RAISED) == 0


def test_failures_without_an_answer(row):
    async def raises(scope, receive, send):
        raise ValueError

    async def silent(scope, receive, send):
        pass

    async def headless(scope, receive, send):
        await send({"type": "http.response.start", "status": 206})
        raise ValueError

    async def midway(scope, receive, send):
        await send({"type": "http.response.start", "status": 206})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise ValueError

    with pytest.raises(ValueError):
        call(wrapped(raises, meter=Meter(row)), http())
    call(wrapped(silent, meter=Meter(row)), http())
    assert (counted(row), row.read(RAISED)) == ({("GET", 5): 2}, 2)
    with pytest.raises(ValueError):
        call(wrapped(headless, meter=Meter(row)), http())
    assert (counted(row), row.read(RAISED)) == ({("GET", 5): 3}, 3)  # engines send the head with the body
    with pytest.raises(ValueError):
        call(wrapped(midway, meter=Meter(row)), http())
    assert (counted(row), row.read(RAISED)) == ({("GET", 5): 3, ("GET", 2): 1}, 4)
    assert idle(row)


def test_a_client_that_leaves_is_4xx_and_no_failure(row):
    async def app(scope, receive, send):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        call(wrapped(app, meter=Meter(row)), http())
    assert (counted(row), row.read(RAISED)) == ({("GET", 4): 1}, 0)
    assert idle(row)


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
def test_an_answer_that_the_engine_sends_counts_once(row, kind, tmp_path):
    (tmp_path / "file").write_bytes(b"x")

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": kind, "path": str(tmp_path / "file"), "file": 0})

    assert len(call(wrapped(app, meter=Meter(row)), http())) == 2
    assert counted(row) == {("GET", 2): 1}
    assert idle(row)


def test_other_messages_pass(row):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 103})
        await send({"type": "http.response.debug", "info": 1})
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body"})
        await send({"type": "http.response.trailers", "headers": []})

    assert len(call(wrapped(app, meter=Meter(row)), http())) == 5
    assert counted(row) == {("GET", 2): 1}


def test_websockets_that_are_open(row):
    seen = []

    async def app(scope, receive, send):
        seen.append((row.in_flight_count(), row.read(WEBSOCKETS)))
        await send({"type": "websocket.accept"})
        seen.append((row.in_flight_count(), row.read(WEBSOCKETS)))
        await send({"type": "websocket.send", "text": "x"})
        await send({"type": "websocket.close"})
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            call(wrapped(app, meter=Meter(row)), websocket())
    assert seen == [(1, 0), (0, 1)] * 2
    assert row.read(WEBSOCKETS) == 0
    assert idle(row)
    assert counted(row) == {("WEBSOCKET", 1): 2}


@pytest.mark.parametrize(
    ("first", "digit"),
    [
        ({"type": "websocket.close"}, 4),
        ({"type": "websocket.http.response.start", "status": 302, "headers": []}, 3),
        (None, 5),
    ],
)
def test_websockets_that_are_refused(row, first, digit):
    async def app(scope, receive, send):
        if first is not None:
            await send(first)
        assert row.read(WEBSOCKETS) == 0

    call(wrapped(app, meter=Meter(row)), websocket())
    assert counted(row) == {("WEBSOCKET", digit): 1}
    assert row.read(WEBSOCKETS) == 0
    assert idle(row)


# -- the access log ----------------------------------------------------------------------------------------


def test_a_line_without_room_is_counted_and_costs_nothing_else():
    log = Log()
    log.full = True
    assert len(call(wrapped(ok, log=log), http())) == 2
    wrapped(hello, "wsgi", log=log)(environ(), Server())
    call(wrapped(ok, log=log), websocket())
    row = log.meter.row
    assert (log, row.read(DROPPED), counted(row)["GET", 2]) == ([], 3, 2)
    assert idle(row)


def test_what_the_rules_leave_out_is_counted_all_the_same():
    rules = parse(("/healthz", "3xx"), ("/many=0.5",))
    log = Log(wanted=rules.wanted)
    asgi, wsgi = wrapped(ok, log=log), wrapped(hello, "wsgi", log=log)
    for _ in range(100):
        call(asgi, http("/healthz"))
        call(asgi, http("/many"))
        wsgi(environ("/healthz"), Server())
    call(asgi, http("/shown", query_string=b"a"))
    wsgi(environ("/shown", QUERY_STRING="a"), Server())
    call(wrapped(answers(304), log=log), http("/shown"))
    assert log.count('9.9.9.9:5000 - "GET /shown?a HTTP/1.1" 200\n') == 2
    assert log.count('9.9.9.9:5000 - "GET /many HTTP/1.1" 200\n') == 50
    assert len(log) == 52
    assert counted(log.meter.row) == {("GET", 2): 302, ("GET", 3): 1}


# -- request ids -------------------------------------------------------------------------------------------


def test_the_id_is_added_to_the_answer_and_the_applications_messages_stay_as_they_are():
    log, headers = Log("all"), [(b"a", b"b")]
    start = {"type": "http.response.start", "status": 200, "headers": headers}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body"})

    for _ in range(2):  # an application may send one object again and again
        sent, _ = call(wrapped(app, log=log, request_id="x-request-id", trace=True), http())
        assert sent["headers"][0] == (b"a", b"b")
        added = dict(sent["headers"][1:])
        assert added[b"x-request-id"].decode() == log[-1][10]
        assert added[b"traceresponse"].decode().split("-")[1] == log[-1][11]
    assert log[0][10] != log[1][10]
    assert start == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    assert start["headers"] is headers


def test_the_applications_own_id_wins():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": ((b"X-Request-Id", b"mine"),)})
        await send({"type": "http.response.body"})

    sent, _ = call(wrapped(app, request_id="x-request-id"), http())
    assert list(sent["headers"]) == [(b"X-Request-Id", b"mine")]


def test_an_answer_without_headers_gets_the_id_too():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    sent, _ = call(wrapped(app, request_id="x-request-id"), http())
    assert [name for name, _ in sent["headers"]] == [b"x-request-id"]


def test_wsgi_ids_and_the_applications_own():
    log, own = Log("all"), [("Content-Length", "0")]

    def app(environ, start_response):
        start_response("200 OK", own)
        return []

    server = Server()
    wrapped(app, "wsgi", log=log, request_id="x-request-id")(environ(), server)
    assert server.calls[0][1] == [("Content-Length", "0"), ("x-request-id", log[0][10])]
    assert own == [("Content-Length", "0")]
    own.append(("X-REQUEST-ID", "mine"))
    wrapped(app, "wsgi", log=log, request_id="x-request-id")(environ(), server)
    assert server.calls[1][1] == own


def test_auto_makes_an_id_only_where_the_line_shows_it():
    for name, number in (("all", 1), ("uvicorn", 0)):
        sent, _ = call(wrapped(ok, log=Log(name), request_id="auto"), http())
        assert len(sent["headers"]) == number


# -- WSGI --------------------------------------------------------------------------------------------------


def test_wsgi_failures(row):
    def raises(environ, start_response):
        raise ValueError

    def leaves(environ, start_response):
        raise SystemExit

    for app, error in (
        (raises, ValueError),
        (leaves, RequestExitError),
        (streaming(Body(fail=ValueError())), ValueError),
    ):
        with pytest.raises(error):
            Server().run(wrapped(app, "wsgi", meter=Meter(row)), environ())
    assert (counted(row), row.read(RAISED)) == ({("GET", 5): 3}, 3)
    with pytest.raises(ValueError):
        Server().run(wrapped(streaming(Body(b"x", fail=ValueError())), "wsgi", meter=Meter(row)), environ())
    assert (counted(row), row.read(RAISED)) == ({("GET", 5): 3, ("GET", 2): 1}, 3)
    assert idle(row)


def test_wsgi_streams_count_when_they_are_closed_early_or_not(row):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"x"
        yield b"y"

    wsgi = wrapped(app, "wsgi", meter=Meter(row))
    stream = wsgi(environ("/stream"), Server())
    next(iter(stream))
    assert [request.path for request in row.in_flight(monotonic())] == ["/stream"]
    stream.close()
    assert idle(row)
    stream.close()
    assert counted(row) == {("GET", 2): 1}
    wsgi(environ(), Server()).close()  # never begun: no status was set
    assert counted(row) == {("GET", 2): 1, ("GET", 5): 1}


def test_wsgi_files_count_when_they_are_closed(row, tmp_path):
    (tmp_path / "file").write_bytes(b"x")

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    body = wrapped(app, "wsgi", meter=Meter(row))(environ(**{"wsgi.file_wrapper": FileWrapper}), Server())
    assert row.in_flight_count() == 1
    body.close()
    assert idle(row)
    assert counted(row) == {("GET", 2): 1}


def test_wsgi_counts_are_exact_with_many_threads():
    log = Log()
    wsgi = wrapped(hello, "wsgi", log=log)
    threads, each = 32, 1000

    def work():
        for _ in range(each):
            wsgi(environ(), Server())

    run = [threading.Thread(target=work) for _ in range(threads)]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    row = log.meter.row
    assert counted(row) == {("GET", 2): threads * each}
    assert len(log) == threads * each
    assert idle(row)


def test_wsgi_threads_do_not_mix_their_lines_in_the_ring():
    rings, row, count = Rings(), Row(), 3000
    rings.give(0)
    log = Lines(formatter("uvicorn"), writer(rings.fd, 0, rings.wake))
    wsgi = wrapped(hello, "wsgi", meter=Meter(row, log))
    names = "abcd"

    def work(name):
        for number in range(count):
            wsgi(environ(f"/{name}/{number}"), Server())

    run = [threading.Thread(target=work, args=(name,)) for name in names]
    reader, got, before = Reader(rings.fd), bytearray(), sys.getswitchinterval()
    reader.indices()
    sys.setswitchinterval(1e-6)
    try:
        for thread in run:
            thread.start()
        while any(thread.is_alive() for thread in run) or reader.held(0):
            found = reader.take(0)
            got += found
            reader.done(0, len(found))
            sleep(0.001)
    finally:
        sys.setswitchinterval(before)
        for thread in run:
            thread.join()
        rings.close()
    shown = sorted(got.decode().splitlines())
    wanted = sorted(f'9.9.9.9:5000 - "GET /{name}/{n} HTTP/1.1" 200' for name in names for n in range(count))
    assert row.read(DROPPED) == 0
    assert shown == wanted


def test_wsgi_threads_that_hang_are_seen(row):
    release = threading.Event()

    def app(environ, start_response):
        release.wait()
        return hello(environ, start_response)

    wsgi = wrapped(app, "wsgi", meter=Meter(row))
    run = [threading.Thread(target=wsgi, args=(environ(f"/{n}"), Server())) for n in range(20)]
    for thread in run:
        thread.start()
    while row.in_flight_count() < 20:
        sleep(0.001)
    assert {request.path for request in row.in_flight(monotonic())} == {f"/{n}" for n in range(20)}
    release.set()
    for thread in run:
        thread.join()
    assert idle(row)


# -- the table ---------------------------------------------------------------------------------------------


def test_a_place_is_used_again_and_a_shorter_path_leaves_nothing_of_the_longer(row):
    begin, end = table(row)
    place = begin(METHOD_BASE["GET"], b"/" + b"long" * 20, 1.0)
    end(place)
    assert begin(METHOD_BASE["PUT"], b"/s", 2.0) == place
    assert row.in_flight(5.0) == [("PUT", "/s", 3.0)]


def test_paths_that_are_no_utf_8_are_shown(row):
    begin, _ = table(row)
    begin(METHOD_BASE["GET"], b"/\xff", 1.0)
    begin(METHOD_BASE["GET"], "\u00e9".encode() * 200, 2.0)
    first, second = row.in_flight(5.0)
    assert first.path == "/\\xff"
    assert second.path.startswith("\u00e9" * 50)
