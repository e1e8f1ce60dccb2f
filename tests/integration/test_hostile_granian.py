"""Hostile clients on granian, and good ones beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Authority
from harness import eventually
from hostile import CHUNKED, GOOD, GOOD_ASGI, HEAD, POST, Target, at_once, closed, read_all
from wire import Wire

BOTH = pytest.mark.parametrize("interface", ["asgi", "wsgi"])
ENGINE = {"MOORING_ENGINE": "granian"}


@pytest.fixture(params=["asgi", "wsgi"])
def target(request, mooring):
    return Target(mooring, request.param, **ENGINE)


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


@BOTH
def test_time_over_tls(interface, mooring, tmp_path):
    certificate, key = Authority(tmp_path).issue(1000)
    target = Target(mooring, interface, (certificate, key), **ENGINE)

    def handshake():
        target.secure = False
        plain = target.connect()
        target.secure = True
        plain.sendall(b"\x16\x03\x01")
        assert read_all(plain) == b""

    handshake()
    assert closed(target, HEAD)[0] == b""
    assert b" 408 " in closed(target, POST)[0]
    target.serves()


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


@BOTH
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_good_clients(interface, secure, mooring, tmp_path):
    certificate = Authority(tmp_path).issue(1000) if secure else None
    target = Target(mooring, interface, certificate, **ENGINE)
    at_once([lambda good=good: good(target) for good in (GOOD_ASGI if interface == "asgi" else GOOD)])
    assert not sum(map(target.refused, ("head_timeout", "body_timeout", "send_timeout", "connections")))
