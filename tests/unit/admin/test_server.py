"""The admin endpoint's server on real sockets, its loop turned by hand: bounded clients, whatever they do."""

from __future__ import annotations

import contextlib
import errno
import resource
import selectors
import socket
import struct
import time

import pytest

from mooring.admin import server
from mooring.admin.answers import Answer, Deferred, Request, parse
from mooring.admin.server import CLIENTS, WRITERS, Admin


class Served:
    """An admin with one door, of unix or TCP, and the loop around it."""

    def __init__(self, listener: socket.socket) -> None:
        self.address = listener.getsockname()
        self.family = listener.family
        listener.listen(512)
        listener.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.errors: list[Exception] = []
        self.admin = Admin(self.selector, self.errors.append)
        self.door = self.admin.open(listener, lambda request: self.answer(request))

    def answer(self, request: Request) -> Answer | Deferred:
        return Answer(200, f"{request.method} {request.path}")

    def turn(self, times: int = 3) -> int:
        """Turn the loop, as the supervisor does; how many events there were."""
        events = 0
        for _ in range(times):
            for key, _ in self.selector.select(0):
                events += 1
                key.data()
            self.admin.expire()
        return events

    def until(self, true, seconds: float = 10) -> None:
        """Turn it, waiting no longer than it asks for, until something is true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            due = self.admin.next_deadline()
            wait = 0.5 if due is None else max(0.0, min(0.5, due - time.monotonic()))
            for key, _ in self.selector.select(wait):
                key.data()
            self.admin.expire()

    def connect(self) -> socket.socket:
        sock = socket.socket(self.family)
        sock.settimeout(5)
        sock.connect(self.address)
        return sock

    def ask(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            return self.read(client)

    def read(self, client: socket.socket) -> bytes:
        """Everything until the end, turning the loop meanwhile."""
        received = bytearray()
        client.setblocking(False)

        def ended() -> bool:
            with contextlib.suppress(BlockingIOError):
                while data := client.recv(65536):
                    received.extend(data)
                return True
            return False

        self.until(ended)
        return bytes(received)

    def close(self) -> None:
        for client in list(self.door.clients):
            self.admin._drop(client)
        self.door.listener.close()
        self.selector.close()


@pytest.fixture(params=["unix", "tcp"])
def served(tmp_path, request):
    listener = socket.socket(socket.AF_UNIX if request.param == "unix" else socket.AF_INET)
    listener.bind(str(tmp_path / "s") if request.param == "unix" else ("127.0.0.1", 0))
    made = Served(listener)
    yield made
    made.close()


@pytest.fixture
def tcp():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    made = Served(listener)
    yield made
    made.close()


@pytest.fixture
def later(monkeypatch):
    """Move the admin's clock on."""
    now = time.monotonic

    def move(seconds: float) -> None:
        monkeypatch.setattr(server.time, "monotonic", lambda: now() + seconds)

    return move


GET = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


# -- requests ----------------------------------------------------------------------------------------------


def test_it_answers_and_closes(served):
    with served.connect() as client:
        served.turn()
        client.sendall(b"GET /live")
        served.turn()
        client.sendall(b"z?x=1 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert served.read(client).endswith(b"\r\n\r\nGET /livez\n")
    served.turn()
    assert served.door.clients == set()
    assert served.admin.next_deadline() is None


def test_head_has_the_length_and_no_body(served):
    head = served.ask(b"HEAD /livez HTTP/1.1\r\n\r\n")
    assert b"\r\ncontent-length: 12\r\n" in head
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "junk",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe \x00\r\n\r\n", b"a b c d\r\n\r\n", b"GET / SPDY/3\r\n\r\n"],
)
def test_junk_is_a_bad_request(served, junk):
    assert served.ask(junk).startswith(b"HTTP/1.1 400")


def test_the_absolute_form_is_understood():
    assert parse(b"GET http://host:9/metrics?x=http://y HTTP/1.1\r\n\r\n") == Request(
        "GET", "/metrics", "host:9"
    )
    assert parse(b"GET http://host HTTP/1.1\r\n\r\n") == Request("GET", "/", "host")
    assert parse(b"GET /a?u=http://y HTTP/1.0\r\n\r\n") == Request("GET", "/a")


def test_a_heads_host_and_authorization_are_read():
    head = b"GET / HTTP/1.1\r\nX: 1\r\nHOST:\t shop:9 \r\nAuthorization: Bearer a:b\r\n\r\nHost: body"
    assert parse(head) == Request("GET", "/", "shop:9", "Bearer a:b")


def test_a_path_with_a_url_in_it_is_no_absolute_form():
    """A page in a browser chooses the path: so it would choose the host."""
    for target in ("/x://127.0.0.1/status", "x://127.0.0.1/status", "/http://127.0.0.1/status"):
        head = f"GET {target} HTTP/1.1\r\nHost: evil\r\n\r\n"
        assert parse(head.encode()) == Request("GET", target, "evil")
    both = b"GET http://127.0.0.1/status HTTP/1.1\r\nHost: evil\r\n\r\n"
    assert parse(both) == Request("GET", "/status", "evil")


def test_two_hosts_are_a_bad_request(served):
    assert served.ask(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_too_long_a_head_is_refused_and_the_refusal_arrives(served):
    answer = served.ask(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000)
    assert answer.startswith(b"HTTP/1.1 431")


def test_who_sends_without_end_is_dropped(served):
    with served.connect() as client:
        client.setblocking(False)
        served.turn()

        def gone() -> bool:
            with contextlib.suppress(BlockingIOError):
                try:
                    client.send(b"x" * 65536)
                except OSError:
                    return True
            return False

        served.until(gone)
    assert served.door.clients == set()


def test_a_pipelined_request_is_left_and_spoils_no_answer(served):
    served.answer = lambda request: Answer(200, request.path * 20_000)
    answer = served.ask(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n" + b"z" * 30_000)
    assert answer.endswith(b"/a/a\n")
    assert answer.count(b"HTTP/1.1 200") == 1


def test_a_request_with_a_body_is_answered(served):
    answer = served.ask(b"POST /roll HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello")
    assert answer.endswith(b"POST /roll\n")


def test_a_client_that_has_closed_its_half_gets_its_answer(served):
    with served.connect() as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert served.read(client).endswith(b"GET /livez\n")
    assert served.door.clients == set()


def test_a_client_that_closes_early_is_forgotten(served):
    with served.connect() as client:
        client.sendall(b"GET /li")
        served.turn()
    served.turn()
    assert served.door.clients == set()


def test_a_reset_is_no_error(tcp):
    tcp.answer = lambda _request: Answer(200, "x" * 5_000_000)
    for sent in (b"", b"GET", GET):
        client = tcp.connect()
        client.sendall(sent)
        tcp.turn()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        tcp.turn()
        assert tcp.door.clients == set()


def test_a_page_that_fails_is_an_internal_error(served):
    def fail(_request: Request) -> Answer:
        raise ValueError("secret")

    served.answer = fail
    answer = served.ask(GET)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"secret" not in answer
    assert [str(error) for error in served.errors] == ["secret"]


# -- time --------------------------------------------------------------------------------------------------


def test_a_slow_head_has_five_seconds_in_all(served, later):
    with served.connect() as client:
        client.sendall(b"GET")
        served.turn()
        due = served.admin.next_deadline()
        assert due is not None
        assert 4 < due - time.monotonic() <= 5
        later(4)
        client.sendall(b" / HT")  # a little of it now and then wins no time
        served.turn()
        assert len(served.door.clients) == 1
        later(5)
        served.turn()
        assert served.door.clients == set()
        assert served.admin.next_deadline() is None


def test_who_never_reads_a_big_answer_is_dropped_in_time(served, later):
    served.answer = lambda _request: Answer(200, "x" * 20_000_000)
    with served.connect() as client:
        client.sendall(GET)
        served.turn(10)
        assert served.turn(10) == 0  # it does not spin
        later(10)
        served.turn()
        assert served.door.clients == set()


def test_who_stays_after_its_answer_is_dropped_in_time(served, later):
    with served.connect() as client:
        client.sendall(GET)
        served.turn()
        assert len(served.door.clients) == 1
        assert served.turn(10) == 0
        later(1)
        served.turn()
        assert served.door.clients == set()


# -- crowds ------------------------------------------------------------------------------------------------


def test_clients_are_bounded_and_the_loop_rests(served):
    held = [served.connect() for _ in range(200)]
    for sock in held:
        sock.sendall(b"G")  # so they have a quarter of a second
    served.turn(60)
    assert len(served.door.clients) == CLIENTS
    assert served.turn(10) == 0
    due = served.admin.next_deadline()
    assert due is not None
    assert due - time.monotonic() <= 0.25
    for sock in held:
        sock.close()


def test_idle_clients_give_way_to_one_that_asks(served):
    held = [served.connect() for _ in range(500)]
    began = time.monotonic()
    assert served.ask(GET).endswith(b"GET /livez\n")
    assert time.monotonic() - began < 4
    for sock in held:
        sock.close()


def test_clients_that_do_not_read_give_way(served):
    served.answer = lambda request: Answer(200, "x" * (20_000_000 if request.path == "/big" else 1))
    held = []
    for _ in range(3 * WRITERS):
        held.append(served.connect())  # the request is there when the connection is taken
        held[-1].sendall(b"GET /big HTTP/1.1\r\n\r\n")
        served.turn()
    assert len(served.door.clients) == WRITERS  # each holds its response in memory
    assert served.ask(b"GET /small HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\nx\n")
    for sock in held:
        sock.close()


def test_a_full_door_leaves_the_others_open(served, tmp_path):
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(tmp_path / "other"))
    other.listen(1)
    other.setblocking(False)
    served.admin.open(other, lambda _request: Answer(200, "other"))
    held = [served.connect() for _ in range(2 * CLIENTS)]
    served.turn(30)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "other"))
        client.sendall(GET)
        served.turn()
        client.settimeout(1)
        assert client.recv(4096).endswith(b"other\n")
    for sock in held:
        sock.close()
    other.close()


def test_no_descriptor_left_makes_it_wait_not_spin(served):
    client = served.connect()
    client.sendall(GET)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno(), hard))
        assert served.turn(1) == 1
        assert served.turn(10) == 0
        assert served.door.paused is not None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert served.read(client).endswith(b"GET /livez\n")
    client.close()


def test_a_door_that_cannot_be_watched_again_is_tried_later(served, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    served.admin._pause(served.door, time.monotonic())
    with monkeypatch.context() as patched:
        patched.setattr(served.selector, "register", refused)
        served.admin.expire()
        assert served.door.paused > time.monotonic()
    assert served.ask(GET).endswith(b"GET /livez\n")


def test_a_client_dropped_in_the_same_batch_is_no_error(served):
    served.door.most = 1
    with served.connect() as first:
        served.turn()
        served.until(lambda: served.door.paused is not None)
        served.until(lambda: served.door.paused is None)  # its patience
        first.sendall(GET)
        with served.connect():
            events = sorted(
                served.selector.select(1), key=lambda event: event[0].fileobj is not served.door.listener
            )
            assert len(events) == 2
            for key, _ in events:  # the accept drops the first client, whose own event comes after it
                key.data()
            assert len(served.door.clients) == 1


def test_a_peer_that_is_not_allowed_is_closed(served):
    served.door.allowed = lambda _peer: False
    with served.connect() as client:
        served.turn()
        assert client.recv(1) == b""
    assert served.door.clients == set()


# -- answers that come later -------------------------------------------------------------------------------


def deferred(seconds: float = 5.0) -> Deferred:
    return Deferred(time.monotonic() + seconds, lambda: Answer(503, "too late"))


def test_a_deferred_answer_reaches_all_who_wait_for_it(served):
    answer = deferred()
    served.answer = lambda _request: answer
    with served.connect() as one, served.connect() as two:
        served.turn()
        one.sendall(GET)
        two.sendall(GET.replace(b"GET", b"HEAD"))
        served.turn()
        one.sendall(b"more that nobody reads")
        assert served.turn(10) == 0  # no spinning
        answer.complete(Answer(200, "there"))
        answer.complete(Answer(200, "twice"))
        assert served.read(one).endswith(b"\r\n\r\nthere\n")
        assert served.read(two).endswith(b"\r\n\r\n")


def test_a_deferred_answer_that_does_not_come_is_given_up_in_time(served):
    answer = deferred(0.2)
    served.answer = lambda _request: answer
    began = time.monotonic()
    assert served.ask(GET).startswith(b"HTTP/1.1 503")
    assert 0.2 <= time.monotonic() - began < 4
    answer.complete(Answer(200, "late"))


def test_a_deferred_answer_that_is_there_already_is_sent_at_once(served):
    answer = deferred()
    answer.complete(Answer(200, "there"))
    served.answer = lambda _request: answer
    assert served.ask(GET).endswith(b"there\n")


def test_who_waits_for_a_deferred_answer_may_leave(tcp):
    answer = deferred()
    tcp.answer = lambda _request: answer
    client = tcp.connect()
    client.sendall(GET)
    tcp.turn()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    answer.complete(Answer(200, "x" * 1000))
    tcp.turn()
    assert tcp.door.clients == set()
