"""uvicorn with hostile clients: each limit, on both event loops and over TLS, and the good neighbours."""

from __future__ import annotations

import functools
import socket
import struct
import threading
import time
from collections.abc import Iterator

import attacks
import pytest
from attacks import CHUNKED, HEAD, POST, Target
from certificates import Authority
from harness import PATIENCE, Starter, eventually
from wire import Wire

VARIANTS = [("uvloop", False), ("asyncio", True)]
NEXT = HEAD.replace(b"GET /", b"GET /unread") + b"\r\n"


def name(variant: tuple[str, bool]) -> str:
    return f"{variant[0]}-tls" if variant[1] else variant[0]


@pytest.fixture(scope="module", params=VARIANTS, ids=name)
def target(request, tmp_path_factory) -> Iterator[Target]:
    loop, tls = request.param
    starter = Starter()
    pair = Authority(tmp_path_factory.mktemp("tls")).issue(7) if tls else None
    yield Target(starter, "asgi", pair, MOORING_ENGINE="uvicorn", MOORING_LOOP=loop)
    left = starter.close()
    assert not left


def status(answer: bytes) -> bytes:
    return answer.split(b" ")[1] if answer else b""


def ended(target: Target, reason: str, data: bytes, expected: bytes) -> None:
    before = target.refused(reason)
    answer, _ = attacks.closed(target, data)
    assert status(answer) == expected, answer
    assert answer.count(b"HTTP/1.1 ") == 1
    eventually(lambda: target.refused(reason) == before + 1, "it is counted once")


SLOW = {
    "silent": ("head_timeout", b"", b"", b""),
    "stalled head": ("head_timeout", HEAD, b"", b"408"),
    "dripping head": ("head_timeout", HEAD + b"X-A: ", b"b", b"408"),
    "dripping empty lines": ("head_timeout", b"\r\n", b"\r\n", b""),
    "empty lines after an answer": ("head_timeout", NEXT, b"\r\n", b"200"),
    "dripping second head": ("head_timeout", NEXT + HEAD + b"X-A: ", b"b", b"200"),
    "stalled body": ("body_timeout", POST, b"", b"408"),
    "dripping body": ("body_timeout", POST, b"b", b"408"),
    "dripping chunks": ("body_timeout", CHUNKED, b"1\r\nb\r\n", b"408"),
    "a body that nobody reads": ("body_timeout", POST.replace(b"/body", b"/unread"), b"b", b"200"),
}


def test_slow_clients_are_answered_or_closed(target: Target):
    before = {reason: target.refused(reason) for reason in ("head_timeout", "body_timeout")}

    def attempt(data: bytes, drip: bytes, expected: bytes) -> None:
        answer, _ = attacks.closed(target, data, drip)
        assert status(answer) == expected, (data, answer)

    attacks.at_once(functools.partial(attempt, *each) for _, *each in SLOW.values())
    for reason, counted in before.items():
        new = [each for each in SLOW.values() if each[0] == reason]
        eventually(lambda: target.refused(reason) == counted + len(new), "each is counted once")  # noqa: B023
    assert "refused 127.0.0.1: head timeout" in target.app.stderr + target.app.stdout


def test_a_client_that_takes_nothing_is_cut(target: Target):
    before = target.refused("send_timeout")
    with target.connect(size=4096) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: target.refused("send_timeout") == before + 1, "it is cut")
        assert len(attacks.read_all(sock)) < attacks.LARGE


def test_good_clients_are_not_hit(target: Target):
    reasons = ("head_timeout", "body_timeout", "send_timeout", "websocket", "connections")
    before = [target.refused(reason) for reason in reasons]
    attacks.at_once([functools.partial(each, target) for each in attacks.GOOD_ASGI])
    assert [target.refused(reason) for reason in reasons] == before


MALFORMED = {
    "length and chunks": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two codings": b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "two hosts": b"Host: y\r\n\r\n",
}
ODD = {
    "a target with another host": (b"400", b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a WebSocket with a body": (b"400", attacks.UPGRADE + b"Content-Length: 5\r\n\r\nabcde"),
    "a WebSocket with chunks": (b"400", attacks.UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a WebSocket with a long field": (b"400", attacks.UPGRADE + b"X-A: " + b"v" * 9000 + b"\r\n\r\n"),
    "a WebSocket behind a request": (b"200", NEXT.replace(b"unread", b"think") + attacks.UPGRADE + b"\r\n"),
}


@pytest.mark.parametrize("shape", MALFORMED)
def test_a_request_with_two_readings_is_refused(target: Target, shape: str):
    data = b"POST /body HTTP/1.1\r\nHost: x\r\n" + MALFORMED[shape] + NEXT
    ended(target, "malformed", data, b"400")


def test_what_other_servers_read_in_another_way_is_refused(target: Target):
    before = target.refused("malformed")

    def attempt(expected: bytes, data: bytes) -> None:
        answer, _ = attacks.closed(target, data)
        assert status(answer) == expected, (data, answer)

    attacks.at_once(functools.partial(attempt, *each) for each in ODD.values())
    eventually(lambda: target.refused("malformed") == before + len(ODD), "each is counted once")


def test_an_upgrade_that_is_ignored_takes_no_body(target: Target):
    with Wire(target.connect()) as wire:
        fields = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")]
        assert wire.ask("/body", "POST", headers=fields, body=b"abc").body == b"3"
        assert wire.ask("/unread", headers=fields).status == 200


def test_pipelined_requests_whose_answers_nobody_takes_end(target: Target):
    before = target.refused("send_timeout")
    with target.connect(size=4096) as sock:
        sock.settimeout(3)
        try:
            for _ in range(400):
                sock.sendall(NEXT * 1000)
        except OSError:
            pass
        assert target.serves() < 3
        eventually(lambda: target.refused("send_timeout") == before + 1, "it is cut")


def test_large_heads_and_bodies_are_refused(target: Target):
    ended(target, "head_size", HEAD + b"X-A: " + b"v" * 20_000 + b"\r\n\r\n", b"431")
    ended(target, "head_size", HEAD.replace(b"/", b"/" + b"v" * 20_000, 1) + b"\r\n", b"431")
    fields = b"".join(b"X-%d: v\r\n" % number for number in range(60))
    ended(target, "head_fields", HEAD + fields + b"\r\n", b"431")
    ended(target, "body_size", POST.replace(b"90000", b"300000"), b"413")
    ended(target, "body_size", POST.replace(b"90000", b"300000") + b"x" * 300_000, b"413")
    ended(target, "body_size", CHUNKED + (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 20, b"413")


def test_what_the_limits_allow_is_taken(target: Target):
    with Wire(target.connect()) as wire:
        many = [(f"X-{number}", "v" * 200) for number in range(49)]
        assert wire.ask("/unread", headers=many).status == 200
        assert wire.ask("/body", "POST", body=b"x" * 100_000).body == b"100000"
        wire.send("/body", "POST", headers=[("Transfer-Encoding", "chunked")])
        for _ in range(20_000):
            wire.chunk(b"x")
        wire.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert wire.reply("POST").body == b"20000"
        assert wire.ask("/unread").status == 200


def test_a_refused_request_does_not_disturb_the_ones_before_it(target: Target):
    answer, _ = attacks.closed(target, HEAD.replace(b"/", b"/think", 1) + b"\r\n" + b"no request\r\n\r\n")
    assert status(answer) == b"200"
    assert answer.endswith(b"0\r\n\r\n")


ENDLESS = {
    "trailers": (CHUNKED + b"0\r\n", b"".join(b"X-%06d: %s\r\n" % (i, b"v" * 20) for i in range(2000))),
    "a trailer": (CHUNKED + b"0\r\nX-A: ", b"v" * 65536),
    "unread": (CHUNKED.replace(b"/body", b"/unread") + b"0\r\n", b"X-A: vvvvvvvv\r\n" * 4000),
    "an extension": (CHUNKED + b"1;a=", b"e" * 65536),
    "extensions": (CHUNKED, (b"1;a=" + b"e" * 1000 + b"\r\nx\r\n") * 60),
    "empty lines": (b"", b"\r\n" * 32768),
    "empty lines after a request": (NEXT, b"\r\n" * 32768),
    "a header": (HEAD + b"X-A: ", b"v" * 65536),
    "a target": (b"GET /", b"v" * 65536),
}


@pytest.mark.parametrize("shape", ENDLESS)
def test_what_brings_no_body_is_bounded(target: Target, shape: str):
    before = target.refused("head_size")
    taken, _ = attacks.flooded(target, *ENDLESS[shape])
    assert taken < 16_000_000  # the kernels' buffers are in it
    assert target.refused("head_size") == before + 1
    assert target.serves() < 3


FLOODS = {
    "fragments": (b"\x02\x81\0\0\0\0x", b"\x00\x81\0\0\0\0x"),
    "pings": (b"", b"\x89\x80\0\0\0\0"),
    "messages": (b"", b"\x82\x81\0\0\0\0x"),
}
UNREAD = CHUNKED.replace(b"/body", b"/unread")


@pytest.mark.parametrize("shape", [*FLOODS, "chunks"])
def test_a_flood_of_small_frames_keeps_nobody_waiting(target: Target, shape: str):
    first, unit = FLOODS.get(shape, (UNREAD, b"1\r\nx\r\n"))
    slowest, done = [0.0], threading.Event()

    def neighbour() -> None:
        while not done.is_set():
            slowest[0] = max(slowest[0], target.serves())

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        with target.connect() if shape == "chunks" else attacks.open_websocket(target) as sock:
            sock.settimeout(3)  # the server reads no faster than it works
            try:
                sock.sendall(first + unit * 300_000)
            except OSError:
                pass
    finally:
        done.set()
        thread.join()
    assert slowest[0] < 3


def test_a_message_of_many_fragments_is_refused(target: Target):
    before = target.refused("websocket")
    with attacks.open_websocket(target) as sock:
        sock.sendall(b"\x02\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 10_100)
        assert b"\x03\xf0" in attacks.read_all(sock)  # 1008
    eventually(lambda: target.refused("websocket") == before + 1, "it is counted")


def test_a_message_in_allowed_fragments_and_a_large_one_arrive(target: Target):
    with attacks.open_websocket(target) as sock:
        sock.sendall(b"\x02\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 9_000 + b"\x80\x81\0\0\0\0x")
        assert sock.recv(4096).endswith(b"9002")
        size = 3_000_000
        for _ in range(3):
            sock.sendall(b"\x82\xff" + struct.pack("!Q", size) + bytes(4) + b"x" * size)
        found = b""
        while found.count(b"3000000") < 3:
            found += sock.recv(4096)


def start(mooring, *tls, **environ) -> Target:
    return Target(mooring, "asgi", *tls, MOORING_ENGINE="uvicorn", **environ)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_oldest_silent_connection_makes_room(mooring, loop):
    target = start(mooring, MOORING_LOOP=loop, MOORING_MAX_CONNECTIONS=20, MOORING_HEAD_TIMEOUT=60)
    with Wire(target.connect()) as busy:
        busy.send("/think")
        silent = [target.connect() for _ in range(40)]
        assert target.serves() < PATIENCE
        eventually(lambda: target.refused("connections") >= 20, "the oldest are closed")
        assert attacks.read_all(silent[0]) == b""
        assert busy.reply().status == 200
    assert target.is_full()
    for each in silent:
        each.close()
    eventually(lambda: not target.is_full(), "it is not full any more")
    said = target.app.stderr + target.app.stdout
    assert said.count("this worker has its most connections (20)") == 1


def test_where_all_are_busy_a_new_connection_is_refused(mooring):
    target = start(mooring, MOORING_MAX_CONNECTIONS=2)
    busy = [Wire(target.connect()) for _ in range(2)]
    for each in busy:
        each.send("/events")
        assert each.head()[0] == 200
    with target.connect() as sock:
        assert status(attacks.read_all(sock)) == b"503"
    for each in busy:
        each.close()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_tls_handshakes_have_the_time_of_a_head_and_make_room(mooring, tmp_path, loop):
    tls = Authority(tmp_path).issue(7)
    target = start(mooring, tls, MOORING_LOOP=loop, MOORING_MAX_CONNECTIONS=20)

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", target.app.port), PATIENCE)

    began = time.monotonic()
    with connect() as sock:
        assert attacks.read_all(sock) == b""
    assert time.monotonic() - began > 1
    eventually(lambda: target.refused("head_timeout") == 1, "it is counted")
    for garbage in (HEAD + b"\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"):
        with connect() as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            attacks.read_all(sock)
    silent = [connect() for _ in range(40)]
    assert target.serves() < PATIENCE
    eventually(lambda: target.refused("connections") >= 20, "the oldest are closed")
    assert attacks.read_all(silent[0]) == b""
    for each in silent:
        each.close()
    assert target.refused("head_timeout") + target.refused("connections") <= 42
    said = target.app.stderr + target.app.stdout
    assert "a TLS handshake" in said
    assert "Traceback" not in said
