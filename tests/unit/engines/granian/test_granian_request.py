"""What granian's ASGI worker gives, as a WSGI application needs it: in C and in Python alike."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.engines.common.connections import Connections
from mooring.engines.granian import request
from mooring.engines.granian.bodies import Body, Parking
from mooring.engines.granian.input import Input
from mooring.scoreboard import accelerator

_names = st.sampled_from(
    [
        *(b"host", b"cookie", b"x-a", b"x_a", b"x-forwarded-for", b"x_forwarded_for", b"content-type"),
        *(b"content-length", b"content_length", b"transfer-encoding", b"a!#$&'*+.^`|~9"),
    ]
)
_scopes = st.fixed_dictionaries(
    {
        "http_version": st.sampled_from(["1.1", "1.1", "1", "2", "3"]),
        "method": st.sampled_from(["GET", "POST"]),
        "scheme": st.sampled_from(["http", "https"]),
        "server": st.just(("127.0.0.1", "80")),
        "client": st.sampled_from([("127.0.0.1", "4000"), ("", "0")]),
        "raw_path": st.one_of(
            st.sampled_from([b"/", b"/a%2Fb", b"/%", b"/%4", b"/%zz%41", b"/%C3%bc;x"]),
            st.binary(max_size=8),
            st.text("%2Ff", max_size=9).map(str.encode),
        ),
        "query_string": st.one_of(st.just(b""), st.binary(max_size=5)),
        "headers": st.lists(st.tuples(_names, st.binary(max_size=4)), max_size=8),
    }
)


class Proto:
    """Granian's half of a request: what it was told."""

    def __init__(self):
        self.told = []

    def send(self, message):
        self.told.append(message)


class Watcher:
    """What granian calls the scheduler with."""

    def __init__(self, scope):
        self.scope, self.proto, self.errors = scope, Proto(), []

    def err(self, error):
        self.errors.append(error)


def scheduler(handle, threads=2, fields=1000):
    parking = Parking(threads, 0, lambda *_: None, lambda: None)
    rules = SimpleNamespace(
        fields=fields,
        waiting=deque(),
        connections=None,
        refused=lambda *_: None,
        parking=parking,
        sendings=set(),
    )
    return request.scheduler(handle, threads, rules)


@pytest.fixture(params=["c", "python"])
def way(request, monkeypatch):
    """With the accelerator and without it."""
    if request.param == "python":
        monkeypatch.setattr(accelerator, "c", None)
    elif accelerator.c is None:
        pytest.skip("mooring was installed without a compiler")


def seen(scope):
    """The environ, and whether the request has a body."""
    found = []

    def handle(exchange, environ):
        found.append(environ | {"wsgi.input": "wsgi.input" in environ})
        assert (exchange.body is None) == ("wsgi.input" not in environ)

    watcher = Watcher(scope)
    scheduler(handle)(watcher)
    return found, watcher.errors


@pytest.mark.skipif(accelerator.c is None, reason="mooring was installed without a compiler")
@settings(max_examples=500, deadline=None)
@given(scope=_scopes)
def test_both_make_the_same_environ(scope):
    fast = seen(scope)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "c", None)
        assert fast == seen(scope)
    assert not fast[1]


def scope(*headers, **more):
    return {
        "http_version": "1.1", "method": "GET", "scheme": "http", "server": ("127.0.0.1", "80"),
        "client": ("127.0.0.1", "4000"), "raw_path": b"/a%2Fb%20c", "query_string": b"q=%C3%BC",
        "headers": list(headers), **more,
    }  # fmt: skip


@pytest.mark.usefixtures("way")
def test_the_environ_has_the_bytes_that_were_sent():
    [environ], _ = seen(
        scope(
            (b"x-name", "gr\xfc\xdfe".encode()), (b"x-forwarded-for", b"1.2.3.4"), (b"x_forwarded_for", b"6"),
            (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-twice", b"1"), (b"x-twice", b"2"),
            (b"content-length", b"3"), (b"content-type", b"text/plain"), (b"content-type", b"other"),
        )
    )  # fmt: skip
    assert environ == {
        "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "4000", "REQUEST_METHOD": "GET", "wsgi.url_scheme": "http",
        "RAW_URI": "/a%2Fb%20c?q=%C3%BC", "PATH_INFO": "/a/b c", "QUERY_STRING": "q=%C3%BC",
        "HTTP_X_NAME": "gr\xc3\xbc\xc3\x9fe", "HTTP_X_FORWARDED_FOR": "1.2.3.4", "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_TWICE": "1,2", "CONTENT_LENGTH": "3", "CONTENT_TYPE": "text/plain", "wsgi.input": True,
    }  # fmt: skip


@pytest.mark.usefixtures("way")
def test_names_that_a_client_makes_up_take_no_memory_for_ever():
    served = []
    schedule = scheduler(lambda _exchange, environ: served.append(len(environ)))
    for number in range(3000):
        schedule(Watcher(scope((b"x-%d" % number, b"1"))))
    assert set(served) == {11}


@pytest.mark.usefixtures("way")
def test_an_answer_is_sent_in_bytes():
    watcher = Watcher(scope())
    headers = [("X-Name", "gr\xfc\xdfe"), ("A", "b")]
    scheduler(lambda exchange, _environ: exchange.response_bytes(201, headers, b"hello"))(watcher)
    assert watcher.proto.told == [
        {
            "type": "http.response.start",
            "status": 201,
            "headers": [(b"X-Name", b"gr\xfc\xdfe"), (b"A", b"b")],
        },
        {"type": "http.response.body", "body": b"hello"},
    ]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("headers", [[("A", "\u20ac")], [("A", 7)], [("A",)], [7], None])
def test_headers_that_are_none_are_an_error_of_the_application(headers):
    watcher = Watcher(scope())
    scheduler(lambda exchange, _environ: exchange.response_bytes(200, headers, b""))(watcher)
    assert watcher.proto.told == []
    assert len(watcher.errors) == 1


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_it_never_raises(error):
    def handle(_exchange, _environ):
        raise error

    watcher = Watcher(scope())
    assert scheduler(handle)(watcher) is None
    assert watcher.errors == [error]


@pytest.mark.usefixtures("way")
def test_more_requests_than_threads_wait_without_a_thread_and_are_served():
    entered, gate, served, most = threading.Semaphore(0), threading.Event(), [], []

    def handle(_exchange, environ):
        served.append(environ["PATH_INFO"])
        most.append(1)
        entered.release()
        gate.wait(30)
        most.pop()

    schedule = scheduler(handle, threads=2)
    threads = [threading.Thread(target=schedule, args=(Watcher(scope()),)) for _ in range(2)]
    for each in threads:
        each.start()
    for _ in threads:
        assert entered.acquire(timeout=30)
    began = time.monotonic()
    for number in range(5):
        schedule(Watcher(scope(raw_path=b"/%d" % number)))  # returns at once
    assert time.monotonic() - began < 20
    assert len(served) == len(most) == 2
    gate.set()
    for each in threads:
        each.join(30)
    assert served[2:] == [f"/{number}" for number in range(5)]
    schedule(Watcher(scope(raw_path=b"/last")))
    assert served[-1] == "/last"


class Done:
    """A result that is there, as granian gives it."""

    def __init__(self, result):
        self.result = result

    def __next__(self):
        raise StopIteration(self.result)


class Pending:
    """A result that another thread brings."""

    def __init__(self):
        self.value, self.callback, self.is_done = None, None, False

    def add_done_callback(self, callback):
        self.callback = callback
        if self.is_done:
            callback(self)

    def bring(self, value):
        self.value, self.is_done = value, True
        if self.callback is not None:
            self.callback(self)

    def done(self):
        return self.is_done

    def result(self):
        return self.value


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


class Upload:
    """Granian's half of a body."""

    def __init__(self, *results):
        self.results = list(results)

    def receive(self):
        return self.results.pop(0)


def test_a_body_is_read_as_it_comes():
    moves = []
    later = Pending()
    upload = Upload(Done(part(b"ab")), later, Done(part(b"", more=False)))
    body = Body(upload, lambda: moves.append(1))
    assert body.read(1) == b"a"
    thread = threading.Thread(target=later.bring, args=(part(b"c\nd"),))
    thread.start()
    assert body.read(2) == b"bc"
    thread.join()
    assert (body.readline(), body.read(1)) == (b"", b"\n")
    assert (body.read(9), body.readline(), body.ended, body.broken) == (b"d", b"", True, False)
    assert len(moves) == 3


def test_a_body_that_breaks_off_is_known_to():
    body = Body(Upload(Done(part(b"ab")), Done({"type": "http.disconnect"})), lambda: None)
    assert (body.read(5), body.ended, body.broken) == (b"ab", True, True)


def test_a_client_that_leaves_is_noticed_and_nothing_of_its_body_is_lost():
    leaving = Pending()
    body = Body(Upload(Done(part(b"ab")), Done(part(b"cd", more=False)), leaving), lambda: None)
    assert not body.left()
    assert not body.left()
    assert body.read(9) == b"abcd"
    leaving.bring({"type": "http.disconnect"})
    assert body.left()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"x-a", b"1"), (b"host", b"x"), (b"host", b"y")], 400),
        ([(b"x-%d" % number, b"1") for number in range(4)], 431),
        ([(b"host", b"x"), (b"x-a", b"1"), (b"x-a", b"2")], None),
    ],
)
def test_what_is_refused_does_not_reach_the_application(headers, status):
    called = []
    watcher = Watcher(scope(*headers))
    scheduler(lambda *given: called.append(given), fields=3)(watcher)
    assert [each["status"] for each in watcher.proto.told if "status" in each] == ([status] if status else [])
    assert bool(called) == (status is None)
    assert not watcher.errors


class Exchanged(Proto):
    """Granian's half of a request with a body that the application does not read."""

    def __init__(self, refused=()):
        super().__init__()
        self.refused = refused

    def receive(self):
        return Done(part(b"x" * (1 << 20)))

    def send(self, message):
        if message["type"] in self.refused:
            raise BufferError
        super().send(message)
        return Done(None)


def streamed(proto, client, listener, chunks):
    """Run a stream to its end, with `proto` as granian's half, for the client of that address."""
    asked = {"client": client, "http_version": "1.1"}
    exchange = request.Exchange(proto, Body(proto, lambda: None), asked, None)
    rules = SimpleNamespace(connections=Connections([listener]), sendings=set())
    request._stream(exchange, 200, [], chunks, rules)


@pytest.fixture
def connected():
    """A listener, and both ends of a connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        with client, served:
            yield listener.getsockname(), client, served


def _named(sock):
    host, port = sock.getsockname()
    return host, str(port)


def test_a_client_that_leaves_in_an_upload_that_is_not_read_ends_its_stream(connected):
    listener, client, _ = connected
    given = []

    def endless():
        yield b""
        while len(given) < 1000:
            given.append(1)
            if len(given) == 5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()  # a reset
            yield b"tick"

    streamed(Exchanged(), _named(client), listener, endless())
    assert len(given) < 50


def test_a_head_that_granian_refuses_leaves_the_connection_for_a_500(connected):
    listener, client, served = connected
    chunks = (chunk for chunk in [b"a", b"b"])
    with pytest.raises(BufferError):
        streamed(Exchanged(["http.response.start"]), _named(client), listener, chunks)
    served.sendall(b"500")
    assert client.recv(9) == b"500"


def test_a_stream_that_fails_when_it_has_begun_is_cut(connected):
    listener, client, _ = connected

    def failing():
        yield b"a"
        raise LookupError

    with pytest.raises(LookupError):
        streamed(Exchanged(), _named(client), listener, failing())
    assert client.recv(9) == b""


class Uploading(Watcher):
    """A request with a body that is not there yet."""

    def __init__(self, length, **more):
        super().__init__(scope((b"content-length", b"%d" % length), **more))
        self.later = Pending()
        results = [self.later, Done(part(b"", more=False))]
        self.proto.receive = lambda: results.pop(0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("ending", ["answer", "body"])
def test_a_parked_request_is_served_when_there_is_a_place(ending):
    entered, gate, served = threading.Semaphore(0), threading.Event(), []

    def handle(exchange, environ):
        if ending == "body":
            Input(exchange.body, 3).read(3)  # not the empty part after it, which tells of the end
        served.append(environ["PATH_INFO"])
        entered.release()
        gate.wait(30)

    schedule = scheduler(handle, threads=2)
    first, second = Uploading(3), Uploading(1 << 17, raw_path=b"/second")
    thread = threading.Thread(target=schedule, args=(first,))
    thread.start()
    while not first.later.callback if ending == "body" else not served:
        time.sleep(0.01)
    schedule(second)  # returns at once: half of the threads have a body that is not whole
    second.later.bring(part(b"x" * (1 << 16)))
    assert "/second" not in served
    if ending == "body":
        first.later.bring(part(b"abc"))
        assert entered.acquire(timeout=30)
    else:
        gate.set()
    for _ in range(1 if ending == "body" else 2):
        assert entered.acquire(timeout=30)
    gate.set()
    thread.join(30)
    assert "/second" in served


@pytest.mark.usefixtures("way")
def test_a_connection_of_http2_leaves_threads_to_others_and_all_of_it_is_served():
    entered, gate, served = threading.Semaphore(0), threading.Event(), []

    def handle(_exchange, environ):
        served.append(environ["REMOTE_PORT"])
        entered.release()
        gate.wait(30)

    def asks(port):
        watcher = Watcher(scope(http_version="2", client=("127.0.0.1", port)))
        watcher.proto.receive = lambda: Done(part(b"", more=False))
        thread = threading.Thread(target=schedule, args=(watcher,))
        thread.start()
        return thread

    schedule = scheduler(handle, threads=4)
    threads = []
    for _ in range(3):
        threads.append(asks("4000"))
        assert entered.acquire(timeout=30)
    for _ in range(3):
        parks = asks("4000")
        parks.join(30)
        assert not parks.is_alive()  # no thread waits for it
    threads.append(asks("5000"))
    assert entered.acquire(timeout=30)
    assert served == ["4000"] * 3 + ["5000"]
    gate.set()
    for _ in range(3):
        assert entered.acquire(timeout=30)
    for each in threads:
        each.join(30)


def test_a_gathered_body_that_is_refused_between_two_parts_is_answered_and_forgotten():
    told = []

    class Dripping:
        def __init__(self):
            self.later = [Pending(), Pending()]

        def receive(self):
            if len(self.later) == 1:
                body.refuse()  # the watch, in its thread: it has seen the wait before
            return self.later.pop(0)

        def send(self, message):
            told.append(message.get("status"))

    parking, proto = Parking(1, 0, lambda *_: None, lambda: None), Dripping()
    first = proto.later[0]
    body = Body(proto, parking.moved, parking, scope())
    parking.park(SimpleNamespace(proto=proto, scope=body.scope), body)
    assert parking.parked
    first.bring(part(b"x"))
    assert not parking.parked
    assert told[0] == 408


def test_a_parked_request_for_which_no_thread_can_be_started_stays():
    parking, started = Parking(1, 0, lambda *_: None, lambda: None), []

    def fails(_call, _given):
        raise RuntimeError("can't start new thread")

    watcher = Uploading(3)
    body = Body(watcher.proto, parking.moved, parking, watcher.scope)
    parking._start = fails
    parking.park(watcher, body)
    watcher.later.bring(part(b"abc", more=False))
    assert list(parking.parked) == list(parking._full)
    assert not parking.served
    parking._start = lambda _call, given: started.append(given[0].body)
    parking.look()
    assert started == [body]
    assert not parking.parked
    assert parking.body_of(watcher.proto, watcher.scope) is body
