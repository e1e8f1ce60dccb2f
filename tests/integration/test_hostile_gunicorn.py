"""Hostile clients on gunicorn's worker classes, and good ones beside them."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from attacks import (
    CHUNKED,
    GOOD,
    HEAD,
    POST,
    Target,
    at_once,
    closed,
    follows_events,
    open_websocket,
    read_all,
    uploads_steadily,
)
from certificates import Authority
from harness import eventually
from variants import ALL

GUNICORN = [each for each in ALL if each.engine == "gunicorn"]
THREADED = [each for each in GUNICORN if each.worker_class != "sync"]
OWN = [each for each in THREADED if "Uvicorn" not in each.worker_class]
everywhere = pytest.mark.parametrize("variant", GUNICORN, ids=str)
threaded = pytest.mark.parametrize("variant", THREADED, ids=str)
GTHREAD = {"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "gthread"}
ASGI = {"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "asgi"}


def start(mooring, variant, tls=None, **more):
    threads = {} if variant.worker_class == "sync" else {"MOORING_THREADS": "12"}
    return Target(mooring, variant.interface, tls, **variant.environ, **threads, **more)


@everywhere
def test_time(variant, mooring):
    target = start(mooring, variant)

    def ends(first, drip=b"", answer=b" 408 "):
        found, _ = closed(target, first, drip)
        assert answer in found, (first, found)

    def takes_nothing():
        with target.connect(size=4096) as sock:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            while not target.refused("send_timeout"):
                if variant.worker_class != "sync":
                    target.serves()

    attacks = [
        lambda: ends(b"", answer=b""),
        lambda: ends(HEAD),
        lambda: ends(HEAD + b"X-A: ", b"b"),
        lambda: ends(POST),
        lambda: ends(CHUNKED + b"5\r\nab"),
        takes_nothing,
    ]
    if variant.worker_class == "sync":  # one connection at a time
        for each in attacks:
            each()
    else:
        at_once([*attacks, target.serves])
    assert target.refused("head_timeout") == 3
    assert target.refused("body_timeout") == 2
    target.serves()


@pytest.mark.parametrize("variant", [each for each in OWN if each.worker_class != "gevent"], ids=str)
def test_time_over_tls(variant, mooring, tmp_path):
    target = start(mooring, variant, Authority(tmp_path).issue(1000))

    def body_ends():
        assert b" 408 " in closed(target, POST)[0]

    at_once([lambda: closed(target, HEAD), lambda: closed(target, b""), body_ends, target.serves])
    assert target.refused("head_timeout") == 2


@pytest.mark.parametrize("variant", OWN, ids=str)
def test_time_over_a_unix_socket(variant, mooring):
    target = start(mooring, variant, unix=True)

    def takes_nothing():
        with target.connect() as sock:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: target.refused("send_timeout"), "it is cut")

    attacks = [lambda data=data: closed(target, data) for data in (b"", HEAD, POST)]
    at_once([*attacks, takes_nothing, lambda: uploads_steadily(target)])
    assert target.refused("body_timeout") == 1


def test_heads_and_bodies_that_stall_do_not_hold_gthreads_threads(mooring):
    target = Target(mooring, "wsgi", **GTHREAD, MOORING_THREADS="4", MOORING_BODY_TIMEOUT="60")
    stalled = [target.connect() for _ in range(200)]
    for number, each in enumerate(stalled):
        each.sendall(POST + b"x" if number % 2 else HEAD)
    for _ in range(5):
        target.serves()
    for each in stalled[1::2]:  # each gets its thread once it is whole, or has a place
        each.sendall(b"x" * 89_999)
    for each in stalled[1::2]:
        assert b" 200 " in each.recv(4096)
    for each in stalled:
        each.close()


@pytest.mark.parametrize("pause", [0, 0.05])
def test_heads_in_pieces_and_pipelined_ones_are_read(pause, mooring):
    target = Target(mooring, "wsgi", **GTHREAD)
    requests = b"\r\n" + POST.replace(b"90000", b"3") + b"abc" + HEAD + b"\r\n"
    last = HEAD + b"Connection: close\r\n\r\n"
    with target.connect() as sock:
        for at in range(0, len(requests), 7):
            sock.sendall(requests[at : at + 7])
            time.sleep(pause)
        sock.sendall(last)
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("variant", OWN, ids=str)
def test_what_gunicorn_refuses_is_counted(variant, mooring):
    target = start(mooring, variant)
    for data in (b"nonsense\r\n\r\n", HEAD + b"A b: c\r\n\r\n"):
        assert b" 400 " in closed(target, data)[0]
    assert target.refused("malformed") == 2
    target.app.wait_log("refused 127.0.0.1: malformed")


def test_chunks_of_a_byte_leave_others_their_turn(mooring):
    target = Target(mooring, "asgi", **ASGI, MOORING_MAX_BODY="0")
    with target.connect() as sock:
        sock.sendall(CHUNKED + b"1\r\nx\r\n" * 200_000)
        assert target.serves() < 3  # by itself gunicorn parses 256 KiB at once: 5 s
        sock.sendall(b"0\r\n\r\n")
        assert b"200000" in sock.recv(4096)


@everywhere
def test_size(variant, mooring):
    target = start(mooring, variant)
    fields = b"".join(b"X-%d: 1\r\n" % number for number in range(60))
    heads = [
        (HEAD + fields + b"\r\n", (b" 431 ", b" 400 ")),
        (HEAD + b"X-A: " + b"v" * 20_000 + b"\r\n\r\n", (b" 431 ", b" 400 ")),
        (HEAD + b"Host: y\r\n\r\n", (b" 400 ",)),
    ]
    for data, statuses in [
        *heads,
        (POST.replace(b"90000", b"100001"), (b" 413 ",)),
        (CHUNKED + (b"8000\r\n" + b"x" * 32768 + b"\r\n") * 4, (b" 413 ",)),
    ]:
        found, _ = closed(target, data)
        assert any(each in found.partition(b"\r\n")[0] for each in statuses), (statuses, found)
    assert target.refused("body_size") == 2
    assert target.refused("malformed") == 1
    assert target.refused("head_fields") + target.refused("head_size") == 2
    target.app.wait_log("refused 127.0.0.1: malformed")
    assert "Invalid request from" not in target.app.stderr  # gunicorn's own line, one for each


@pytest.mark.parametrize("variant", [each for each in GUNICORN if each.interface == "asgi"], ids=str)
def test_a_message_of_many_fragments_is_refused(variant, mooring):
    target = start(mooring, variant)
    with open_websocket(target) as sock:
        sock.sendall(b"\x02\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 10_100)
        assert b"\x03\xf0" in read_all(sock)  # 1008
    eventually(lambda: target.refused("websocket") == 1, "it is counted")


@threaded
def test_number(variant, mooring):
    target = start(mooring, variant, MOORING_MAX_CONNECTIONS="20", MOORING_HEAD_TIMEOUT="30")
    silent = [target.connect() for _ in range(60)]
    for each in silent[:30]:
        assert each.recv(1) == b""
    target.serves()
    assert target.refused("connections") >= 30
    assert target.is_full()
    for each in silent:
        each.close()
    eventually(lambda: not target.is_full(), "it is not full any more")


@pytest.mark.parametrize(
    ("variant", "secure"), [(each, each.worker_class == "gthread") for each in OWN], ids=str
)
def test_good_clients(variant, secure, mooring, tmp_path):
    target = start(mooring, variant, Authority(tmp_path).issue(1000) if secure else None)
    good = [*GOOD, follows_events] if variant.interface == "asgi" else GOOD
    at_once([lambda each=each: each(target) for each in good])
    assert not sum(map(target.refused, ("head_timeout", "body_timeout", "send_timeout", "connections")))


def test_what_tls_has_decrypted_of_the_next_request_is_served(mooring, tmp_path):
    target = Target(mooring, "wsgi", Authority(tmp_path).issue(1000), **GTHREAD)
    with target.connect() as sock:
        sock.sendall(POST.replace(b"90000", b"12000"))
        target.serves()  # a thread waits for the body by now
        sock.sendall(b"x" * 12_000 + HEAD + b"Connection: close\r\n\r\n")  # one record
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_never_waits_holds_no_greenlet_but_its_own(mooring):
    target = Target(mooring, "wsgi", **GTHREAD | {"WORKER_CLASS": "gevent"}, MOORING_MAX_BODY="0")
    ended = threading.Event()

    def floods(sock):
        with contextlib.suppress(OSError):
            sock.sendall(CHUNKED)
            while not ended.is_set():
                sock.sendall(b"1\r\nx\r\n" * 5000)

    with target.connect() as sock:
        thread = threading.Thread(target=floods, args=(sock,))
        thread.start()
        try:
            for _ in range(3):
                assert target.serves() < 5
        finally:
            ended.set()
            thread.join()
