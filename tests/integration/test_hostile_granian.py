"""Hostile clients on granian, and good ones beside them."""

from __future__ import annotations

import threading
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from attacks import (
    CHUNKED,
    GOOD,
    GOOD_ASGI,
    HEAD,
    POST,
    PREFACE,
    REQUEST,
    Target,
    at_once,
    closed,
    headers,
    open_websocket,
    pings,
    read_all,
    settings,
    uploads_steadily,
    waits_for_a_slow_application,
)
from certificates import Authority
from harness import PATIENCE, eventually
from hyperframe import frame
from wire import Wire

ENGINE = {"MOORING_ENGINE": "granian"}


@pytest.fixture(params=["asgi", "wsgi"])
def target(request, mooring):
    return Target(mooring, request.param, **ENGINE)


@pytest.fixture(params=["asgi", "wsgi"])
def target_at_unix(request, mooring):
    return Target(mooring, request.param, **ENGINE, unix=True, MOORING_KEEP_ALIVE="2")


def test_time(target):
    def ends(shape, first, drip=b"", answer=b" 408 "):
        found, seconds = closed(target, first, drip)
        assert answer in found, (shape, found)
        assert seconds >= 1.5, shape

    def takes_nothing():
        with target.connect(size=4096) as sock:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            while not target.refused("send_timeout"):
                target.serves()

    at_once(
        [
            lambda: ends("silent", b"", answer=b""),
            lambda: ends("a stalled head", HEAD),
            lambda: ends("a dripping head", HEAD + b"X-A: ", b"b"),
            lambda: ends("a stalled body", POST),
            lambda: ends("a stalled body in chunks", CHUNKED + b"5\r\nab"),
            takes_nothing,
            target.serves,
        ]
    )
    assert target.refused("head_timeout") == 3
    assert target.refused("body_timeout") == 2
    target.serves()


def test_a_body_that_drips(mooring):
    target = Target(mooring, "asgi", **ENGINE, MOORING_BODY_TIMEOUT="60")
    found, seconds = closed(target, POST, b"x", pace=0.5)
    assert b" 408 " in found
    assert seconds > 15


def test_time_over_tls(mooring, tmp_path):
    certificate, key = Authority(tmp_path).issue(1000)
    target = Target(mooring, "wsgi", (certificate, key), **ENGINE)

    def handshake():
        target.secure = False
        plain = target.connect()
        target.secure = True
        plain.sendall(b"\x16\x03\x01")
        assert read_all(plain) == b""

    def ends(data, answer):
        assert answer in closed(target, data)[0]

    handshake()
    at_once([lambda: ends(HEAD, b""), lambda: ends(POST, b" 408 "), target.serves])


def test_size(target):
    fields = b"".join(b"X-%d: 1\r\n" % number for number in range(60))
    for data, status in [
        (HEAD + fields + b"\r\n", b" 431 "),
        (HEAD + b"X-A: " + b"v" * 20_000 + b"\r\n\r\n", b" 431 "),
        (POST.replace(b"90000", b"100001"), b" 413 "),
        (CHUNKED + (b"8000\r\n" + b"x" * 32768 + b"\r\n") * 4, b" 413 "),
        (HEAD + b"Host: y\r\n\r\n", b" 400 "),
    ]:
        found, _ = closed(target, data)
        assert status in found.partition(b"\r\n")[0], (status, found)
    assert target.refused("head_fields") == 1
    assert target.refused("body_size") == 2
    assert target.refused("malformed") == 1


def test_number(mooring):
    target = Target(mooring, "wsgi", **ENGINE, MOORING_MAX_CONNECTIONS="20", MOORING_HEAD_TIMEOUT="30")
    silent = [target.connect() for _ in range(60)]
    kept = Wire(target.connect())
    assert kept.ask("/unread").status == 200
    for each in silent[:30]:
        assert each.recv(1) == b""
    assert kept.ask("/unread").status == 200
    assert target.refused("connections") >= 30
    assert target.is_full()
    for each in silent:
        each.close()
    kept.close()
    eventually(lambda: not target.is_full(), "it is not full any more")


def test_time_over_a_unix_socket(target_at_unix):
    """The kernel tells less of these; a request in flight is not taken for a silent client."""
    target = target_at_unix

    def ends(data, answer):
        found, seconds = closed(target, data)
        assert answer in found, (data, found)
        assert seconds >= 1.5

    def takes_nothing():
        with target.connect() as sock:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: target.refused("send_timeout"), "it is cut")

    at_once(
        [
            lambda: ends(b"", b""),
            lambda: ends(HEAD, b""),
            lambda: ends(POST, b" 408 "),
            lambda: ends(CHUNKED + b"5\r\nab", b" 408 "),
            takes_nothing,
            lambda: waits_for_a_slow_application(target),
            lambda: uploads_steadily(target),
        ]
    )
    assert target.refused("body_timeout") == 2


def test_bodies_that_stall_hold_no_more_than_half_of_the_threads(mooring):
    target = Target(mooring, "wsgi", **ENGINE, MOORING_THREADS="4", MOORING_BODY_TIMEOUT="60")
    stalled = [target.connect() for _ in range(200)]
    for each in stalled:
        each.sendall(POST + b"x")
    for _ in range(5):
        assert target.serves() < PATIENCE
    steady = target.connect()
    steady.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n12345")
    steady.sendall(b"6789")
    assert read_all(steady).endswith(b"9")
    for each in stalled:  # each gets its thread once it is whole
        each.sendall(b"x" * 89_999)
    for each in stalled:
        assert b" 200 " in each.recv(4096)
        each.close()


def test_many_uploads_on_one_connection_of_http2_all_end(mooring):
    """More than have threads: what has come of those that wait leaves room in the connection's window."""
    size = 200_000
    more = {"MOORING_THREADS": "4", "MOORING_BODY_TIMEOUT": "60", "MOORING_MAX_BODY": "0"}
    target = Target(mooring, "wsgi", **ENGINE, **more)
    fields = [(":method", "POST"), (":path", "/body"), (":scheme", "http"), (":authority", "x")]
    client, answers = h2.connection.H2Connection(h2.config.H2Configuration()), {}
    client.initiate_connection()
    left = dict.fromkeys(range(1, 48, 2), size)
    with target.connect() as sock:
        for stream in left:
            client.send_headers(stream, [*fields, ("content-length", str(size))])
        while len(answers) < len(left):
            for stream in sorted(left, key=lambda each: -left[each]) * (size // 16_384 + 1):  # in turns
                if part := min(left[stream], client.local_flow_control_window(stream), 16_384):
                    left[stream] -= part
                    client.send_data(stream, bytes(part), end_stream=not left[stream])
            sock.sendall(client.data_to_send())
            data = sock.recv(65536)
            assert data, answers
            for event in client.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    answers[event.stream_id] = event.data
    assert set(answers.values()) == {b"%d" % size}


def test_a_client_of_http2_that_opens_no_window_holds_no_thread_for_long(mooring):
    target = Target(mooring, "wsgi", **ENGINE, MOORING_THREADS="4")
    large = REQUEST.replace(b"\x84", b"\x04\x06/large")
    with target.connect("h2") as sock:
        sock.sendall(PREFACE + frame.SettingsFrame(0, settings={4: 0}).serialize())
        sock.sendall(b"".join(headers(2 * number + 1, large) for number in range(20)))
        eventually(lambda: target.refused("send_timeout"), "its answers are given up")
        assert target.serves() < PATIENCE


@pytest.mark.parametrize("unit", [b"\x00\x81\0\0\0\0x", b"\x89\x81\0\0\0\0x"], ids=["fragments", "pings"])
def test_a_flood_of_websocket_frames_ends(unit, mooring):
    target = Target(mooring, "asgi", **ENGINE, MOORING_WEBSOCKET_MAX_SIZE="100000")
    with open_websocket(target) as sock:
        sock.sendall(b"\x02\x81\0\0\0\0x")
        sent = 0
        try:
            while sent < 400_000_000:
                sent += sock.send(unit * 5000)
        except OSError:
            pass
    assert sent < 400_000_000
    eventually(lambda: target.refused("websocket") == 1, "it is counted")


@pytest.mark.parametrize("flood", [pings, settings])
def test_a_flood_of_http2_frames_ends(flood, mooring):
    target = Target(mooring, "wsgi", **ENGINE)
    with target.connect("h2") as sock:
        sock.sendall(PREFACE + frame.SettingsFrame(0).serialize() + headers(1))
        reading = threading.Thread(target=read_all, args=(sock,))  # what it is answered, one for one
        reading.start()
        unit, sent = flood(1) * 1000, 0
        try:
            while sent < 400_000_000:
                sock.sendall(unit)
                sent += len(unit)
        except OSError:
            pass
        reading.join()
    assert target.refused("http2") == 1


def test_the_kernel_asks_silent_clients(target):
    """granian sends WebSockets no pings: a client that has vanished is known by TCP's own."""
    with target.connect() as sock:
        Wire(sock).ask("/unread")
        ends = (sock.getpeername()[1], sock.getsockname()[1])
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        found = [each for each in lines if tuple(int(end.split(":")[1], 16) for end in each[1:3]) == ends]
        assert [each[5].split(":")[0] for each in found] == ["02"]  # the keepalive timer: proc_net_tcp.txt


def test_a_malformed_chunk_is_an_error(target):
    found, _ = closed(target, CHUNKED + b"3\r\nabc\r\nzz\r\n")
    assert b" 400 " in found if target.interface == "wsgi" else b" 200 " not in found
    assert "Traceback" not in target.app.stderr  # what a client sends is no failure of the application


@pytest.mark.parametrize(("interface", "secure"), [("asgi", True), ("wsgi", False)])
def test_good_clients(interface, secure, mooring, tmp_path):
    certificate = Authority(tmp_path).issue(1000) if secure else None
    target = Target(mooring, interface, certificate, **ENGINE)
    at_once([lambda good=good: good(target) for good in (GOOD_ASGI if interface == "asgi" else GOOD)])
    assert not sum(map(target.refused, ("head_timeout", "body_timeout", "send_timeout", "connections")))
