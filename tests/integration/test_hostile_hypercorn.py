"""hypercorn with hostile clients: each limit, on each worker class and over TLS, and the good neighbours."""

from __future__ import annotations

import functools
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import attacks
import pytest
from attacks import CHUNKED, HEAD, POST, Target
from certificates import Authority
from harness import PATIENCE, Starter, eventually
from hyperframe import frame

Variant = tuple[str, str, bool]
WHOLE: Variant = ("asgi", "asyncio", False)
LOOPS: list[Variant] = [("asgi", "uvloop", False), ("asgi", "trio", False), ("asgi", "asyncio", True)]
REST: list[Variant] = [("wsgi", "asyncio", False), ("asgi", "trio", True)]
RARE: list[Variant] = [("wsgi", "trio", False), ("asgi", "uvloop", True)]


def name(variant: Variant) -> str:
    return "-".join([*variant[:2], *(["tls"] if variant[2] else [])])


def variants(*usual: Variant) -> pytest.MarkDecorator:
    """The test on these variants; on all others in the long run."""
    others = [each for each in [WHOLE, *LOOPS, *REST, *RARE] if each not in usual]
    params = [pytest.param(each, id=name(each)) for each in usual]
    params += [pytest.param(each, id=name(each), marks=pytest.mark.longrun) for each in others]
    return pytest.mark.parametrize("target", params, indirect=True)


def worker_classes(*usual: str) -> pytest.MarkDecorator:
    """The same for tests with a server of their own."""
    others = {"asyncio", "uvloop", "trio"} - {*usual}
    params = [*usual, *(pytest.param(each, marks=pytest.mark.longrun) for each in sorted(others))]
    return pytest.mark.parametrize("worker_class", params)


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Callable[[Variant], Target]]:
    """Servers that are started when they are wanted, and shared."""
    started: dict[Variant, tuple[Starter, Target]] = {}

    def get(variant: Variant) -> Target:
        if variant not in started:
            interface, worker_class, tls = variant
            pair = Authority(tmp_path_factory.mktemp("tls")).issue(7) if tls else None
            more = {"MOORING_ENGINE": "hypercorn", "WORKER_CLASS": worker_class}
            starter = Starter()
            started[variant] = starter, Target(starter, interface, pair, **more)
        return started[variant][1]

    yield get
    assert not [left for starter, _ in started.values() for left in starter.close()]


@pytest.fixture
def target(request, servers) -> Target:
    return servers(request.param)


def ended(target: Target, reason: str, data: bytes, drip: bytes = b"", status: bytes = b"408") -> None:
    before = target.refused(reason)
    answer, after = attacks.closed(target, data, drip)
    assert not status or answer.split(b" ")[1:2] == [status], answer
    assert after < PATIENCE
    eventually(lambda: target.refused(reason) == before + 1, "it is counted once")


SLOW = {
    "silent": ("head_timeout", b"", b"", b""),
    "stalled head": ("head_timeout", HEAD, b"", b"408"),
    "dripping head": ("head_timeout", HEAD + b"X-A: ", b"b", b"408"),
    "second head": ("head_timeout", HEAD.replace(b"GET /", b"GET /unread") + b"\r\n" + HEAD, b"", b""),
    "stalled body": ("body_timeout", POST, b"", b"408"),
    "dripping body": ("body_timeout", POST, b"b", b"408"),
    "dripping chunks": ("body_timeout", CHUNKED, b"1\r\nb\r\n", b"408"),
}


@variants(WHOLE, *LOOPS[1:], REST[0])
def test_slow_clients_are_ended_and_good_ones_are_not(target: Target):
    others = ("websocket", "connections", "malformed")
    before = {reason: target.refused(reason) for reason in ("head_timeout", "body_timeout", *others)}
    cut = target.refused("send_timeout")
    works: list[Callable[[], object]] = [functools.partial(takes_nothing, target)]
    for _, data, drip, status in SLOW.values():

        def work(data=data, drip=drip, status=status) -> None:
            answer, _ = attacks.closed(target, data, drip)
            assert not status or answer.split(b" ")[1:2] == [status], (data, answer)

        works.append(work)
    good = attacks.GOOD_ASGI if target.interface == "asgi" else attacks.GOOD
    attacks.at_once([*works, *(functools.partial(each, target) for each in good)])
    for reason, counted in before.items():
        new = [each for each in SLOW.values() if each[0] == reason]
        assert target.refused(reason) == counted + len(new), reason
    assert target.refused("send_timeout") == cut + 1
    assert "refused 127.0.0.1: head timeout" in target.app.stderr + target.app.stdout


def takes_nothing(target: Target) -> None:
    with target.connect(size=4096) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: target.refused("send_timeout"), "it is cut")
        assert len(attacks.read_all(sock)) < attacks.LARGE


MALFORMED = {
    "length and chunks": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "two hosts": b"Host: y\r\n\r\n",
}


@variants(WHOLE)
def test_a_request_with_two_readings_is_refused(target: Target):
    for shape in MALFORMED.values():
        data = b"POST /body HTTP/1.1\r\nHost: x\r\n" + shape + HEAD + b"\r\n"
        ended(target, "malformed", data, status=b"400")


@variants(WHOLE, *LOOPS, *REST)
def test_large_heads_and_bodies_are_refused(target: Target):
    ended(target, "head_size", HEAD + b"X-A: " + b"v" * 20_000 + b"\r\n\r\n", status=b"431")
    fields = b"".join(b"X-%d: v\r\n" % number for number in range(60))
    ended(target, "head_fields", HEAD + fields + b"\r\n", status=b"431")
    data = POST.replace(b"90000", b"300000") + b"x" * 300_000
    ended(target, "body_size", data, status=b"413")
    chunks = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    ended(target, "body_size", CHUNKED + chunks * 20, status=b"413")


ENDLESS = {
    "trailers": (CHUNKED + b"0\r\n", b"".join(b"X-%06d: %s\r\n" % (i, b"v" * 20) for i in range(2000))),
    "a trailer": (CHUNKED + b"0\r\nX-A: ", b"v" * 65536),
    "unread": (CHUNKED.replace(b"/body", b"/unread") + b"0\r\n", b"X-A: vvvvvvvv\r\n" * 4000),
    "an extension": (CHUNKED + b"1;a=", b"e" * 65536),
    "extensions": (CHUNKED, (b"1;a=" + b"e" * 1000 + b"\r\nx\r\n") * 60),
    "empty lines": (b"", b"\r\n" * 32768),
}


@variants(WHOLE, LOOPS[1])
def test_what_brings_no_body_is_bounded(target: Target):
    for shape, (head, unit) in ENDLESS.items():
        taken, _ = attacks.flooded(target, head, unit)
        assert taken < 16_000_000, shape  # the kernels' buffers are in it
    assert target.serves() < 3


@variants(WHOLE, LOOPS[1])
def test_a_message_of_many_fragments_is_refused(target: Target):
    if target.interface == "wsgi":
        return  # it has none
    before = target.refused("websocket")
    with attacks.open_websocket(target) as sock:
        sock.sendall(b"\x02\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 10_100)
        assert b"\x03\xf0" in attacks.read_all(sock)  # 1008
    eventually(lambda: target.refused("websocket") == before + 1, "it is counted")


def window_updates(number: int) -> bytes:
    return frame.WindowUpdateFrame(0, window_increment=1).serialize()


def data_for_nobody(number: int) -> bytes:
    reset = frame.RstStreamFrame(1, error_code=8).serialize()
    head = attacks.headers(1, attacks.REQUEST, "END_HEADERS") + reset
    return (b"" if number else head) + frame.DataFrame(1, b"x").serialize()


def resets_by_the_server(number: int) -> bytes:
    return attacks.headers(2 * number + 1) + frame.DataFrame(2 * number + 1, b"x").serialize()


HTTP2 = [*attacks.FLOODS, attacks.large_list, window_updates, data_for_nobody, resets_by_the_server]


def ends_with_goaway(target: Target, flood: Callable[[int], bytes]) -> None:
    before = target.refused("http2")
    slowest, done = [0.0], threading.Event()

    def neighbour() -> None:
        while not done.is_set():
            slowest[0] = max(slowest[0], target.serves())

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        answer = attacks.http2_flood(target, flood, 20_000)
    finally:
        done.set()
        thread.join()
    goaway = [each for each in answer if isinstance(each, frame.GoAwayFrame)]
    assert goaway, answer[-3:]
    assert goaway[0].error_code
    eventually(lambda: target.refused("http2") == before + 1, "it is counted")
    assert slowest[0] < 3


@variants(WHOLE)
@pytest.mark.parametrize("flood", HTTP2, ids=lambda flood: flood.__name__)
def test_http2_floods_end_with_goaway(target: Target, flood):
    ends_with_goaway(target, flood)


@variants(*LOOPS)
def test_http2_floods_end_on_each_loop_and_over_tls(target: Target):
    ends_with_goaway(target, attacks.rapid_reset)
    ends_with_goaway(target, attacks.continuations)


@worker_classes("asyncio", "trio")
def test_pings_without_answers_end_a_websocket(mooring, worker_class):
    target = Target(
        mooring,
        "asgi",
        None,
        files={"hypercorn.toml": "websocket_ping_interval = 1"},
        MOORING_ENGINE="hypercorn",
        WORKER_CLASS=worker_class,
        MOORING_HYPERCORN_CONF=str(mooring.folder / "hypercorn.toml"),
    )
    with attacks.open_websocket(target) as sock:
        assert b"\x89" in attacks.read_all(sock)  # a ping
    eventually(lambda: target.refused("websocket") == 1, "it is counted")


@worker_classes("asyncio", "trio")
def test_the_oldest_silent_connection_makes_room(mooring, worker_class):
    target = Target(
        mooring,
        "asgi",
        MOORING_ENGINE="hypercorn",
        WORKER_CLASS=worker_class,
        MOORING_MAX_CONNECTIONS=20,
        MOORING_HEAD_TIMEOUT=60,
    )
    silent = [target.connect() for _ in range(40)]
    assert target.serves() < PATIENCE
    eventually(lambda: target.refused("connections") >= 20, "the oldest are closed")
    silent[0].settimeout(PATIENCE)
    assert attacks.read_all(silent[0]) == b""
    assert target.is_full()
    for each in silent:
        each.close()
    eventually(lambda: not target.is_full(), "it is not full any more")


@worker_classes("asyncio", "uvloop", "trio")
def test_a_tls_handshake_counts_and_has_the_time_of_a_head(mooring, tmp_path, worker_class):
    target = Target(
        mooring,
        "asgi",
        Authority(tmp_path).issue(7),
        MOORING_ENGINE="hypercorn",
        WORKER_CLASS=worker_class,
        MOORING_MAX_CONNECTIONS=10,
    )
    address = ("127.0.0.1", target.app.port)
    with socket.create_connection(address, PATIENCE) as sock:
        assert attacks.read_all(sock) == b""
    assert target.refused("head_timeout") == 1
    with socket.create_connection(address, PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        attacks.read_all(sock)
    silent = [socket.create_connection(address, PATIENCE) for _ in range(20)]
    assert target.serves() < PATIENCE
    eventually(lambda: target.refused("connections") >= 10, "the oldest make room")
    for each in silent:
        each.close()
    assert "Traceback" not in target.app.stderr
    assert target.app.stop() == 0


STREAM = bytes([0x83, 0x86, 0x41, 1]) + b"x" + b"\x04\x05/body"  # POST /body
WEBSOCKET = (
    b"\x42\x07CONNECT\x86\x04\x03/ws\x41\x01x\x00\x09:protocol\x09websocket"
    b"\x00\x15sec-websocket-version\x0213"
)


def data(payload: bytes) -> bytes:
    return frame.DataFrame(1, payload).serialize()


def last_frames(target: Target, *sent: bytes) -> list[frame.Frame]:
    """What is answered on stream 1 until it ends, or the connection."""
    answer = b""
    with target.connect("h2") as sock:
        sock.sendall(attacks.PREFACE + frame.SettingsFrame(0).serialize())
        for each in sent:
            sock.sendall(each)
            time.sleep(0.2)  # else a WebSocket's frames come before it is accepted
        while part := sock.recv(65536):
            answer += part
            found = [each for each in attacks.frames(answer) if each.stream_id == 1]
            if any(isinstance(each, frame.RstStreamFrame) or "END_STREAM" in each.flags for each in found):
                break
    return found


@variants(WHOLE, LOOPS[1])
def test_a_stream_of_http2_has_limits_of_its_own(target: Target):
    reasons = ("body_size", "body_timeout", "send_timeout", "websocket", "malformed")
    before = {reason: target.refused(reason) for reason in reasons}
    post = attacks.headers(1, STREAM, "END_HEADERS")
    opened = attacks.headers(1, WEBSOCKET, "END_HEADERS")
    large = bytes([0x82, 0x86, 0x41, 1]) + b"x" + b"\x04\x06/large"
    closed_window = frame.SettingsFrame(0, settings={4: 0}).serialize() + attacks.headers(1, large)
    fragments = b"\x00\x81\0\0\0\0x" * 2000

    def websocket() -> None:
        found = last_frames(target, opened, data(b"\x02\x81\0\0\0\0x"), *[data(fragments)] * 6)
        assert any(b"\x03\xf0" in each.data for each in found if isinstance(each, frame.DataFrame))  # 1008

    attacks.at_once(
        [
            lambda: last_frames(target, post, *[data(b"x" * 10_000)] * 12),
            lambda: last_frames(target, post),
            lambda: last_frames(target, closed_window),
            lambda: last_frames(target, attacks.headers(1, b"\x42\x07CONNECT\x41\x01x")),
            lambda: last_frames(target, attacks.headers(1, b"\x82\x86\x44\x03/\xff\xfe\x41\x01x")),
            websocket,
        ]
    )
    counts = {**dict.fromkeys(reasons, 1), "malformed": 2}
    assert {reason: target.refused(reason) - before[reason] for reason in reasons} == counts


UPGRADE = HEAD + b"Connection: Upgrade\r\nUpgrade: "
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UNREADABLE = {
    "data before the answer": UPGRADE + b"websocket\r\n" + KEY + b"\r\n\x82\x81\0\0\0\0x",
    "an extension": UPGRADE + b"websocket\r\n" + KEY + b"Sec-WebSocket-Extensions: \xff\r\n\r\n",
    "no key": UPGRADE + b"websocket\r\n\r\n",
    "HTTP2-Settings": UPGRADE + b"h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP\r\n\r\n",
    "a version": b"GET / HTTP/3.7\r\nHost: x\r\n\r\n",
}


@variants(WHOLE, LOOPS[1])
def test_what_cannot_be_read_ends_its_connection_alone(target: Target):
    pid = target.app.status()["workers"][0]["pid"]
    for shape, sent in UNREADABLE.items():
        before = target.refused("malformed")
        answer, _ = attacks.closed(target, sent)
        assert answer.split(b" ")[1] in (b"400", b"101"), shape
        assert target.refused("malformed") == before + 1, shape
    assert "Traceback" not in target.app.stderr
    assert target.app.status()["workers"][0]["pid"] == pid


@variants(WHOLE, LOOPS[1])
def test_a_bomb_in_a_message_is_refused_and_holds_nobody(target: Target):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (packer.compress(b"\0" * 60_000_000) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    before = target.refused("websocket")
    with target.connect() as sock:
        sock.sendall(
            UPGRADE + b"websocket\r\n" + KEY + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        )
        assert b"permessage-deflate" in sock.recv(4096)
        for _ in range(3):
            sock.sendall(b"\xc2\xfe" + len(bomb).to_bytes(2, "big") + b"\0\0\0\0" + bomb)
        assert target.serves() < 3
        assert b"\x03\xf1" in attacks.read_all(sock)  # 1009
    assert target.refused("websocket") == before + 1


@variants(WHOLE, LOOPS[1])
def test_a_flood_of_pings_holds_nobody(target: Target):
    with attacks.open_websocket(target) as sock:
        thread = threading.Thread(target=_pinging, args=(sock,))
        thread.start()
        slowest = max(target.serves() for _ in range(10))
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert slowest < 3


def _pinging(sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        while True:
            readable, writable, _ = select.select([sock], [sock], [], PATIENCE)
            if writable:
                sock.send(b"\x89\x80\0\0\0\0" * 2000)
            if readable and not sock.recv(65536):
                return
    except OSError:
        return


@worker_classes("asyncio", "uvloop", "trio")
def test_a_stop_ends_in_time_with_clients_that_take_nothing(mooring, worker_class):
    target = Target(
        mooring,
        "asgi",
        MOORING_ENGINE="hypercorn",
        WORKER_CLASS=worker_class,
        MOORING_GRACEFUL_TIMEOUT=3,
        **{f"MOORING_{each}_TIMEOUT": 60 for each in ("HEAD", "BODY", "SEND")},
    )
    first = attacks.PREFACE + frame.SettingsFrame(0, settings={4: 0}).serialize()
    get = HEAD.replace(b"GET /", b"GET /large") + b"\r\n"
    heads = [get, HEAD, POST, first + attacks.headers(1, STREAM, "END_HEADERS"), first + attacks.headers(1)]
    clients = [target.connect(size=4096) for _ in heads]
    for client, head in zip(clients, heads, strict=True):
        client.sendall(head)
    for client in clients[:1]:
        assert client.recv(1)
    assert target.app.stop() == 0
    assert "killing" not in target.app.stderr
    assert "Traceback" not in target.app.stderr
    for client in clients:
        client.close()
