"""hypercorn with hostile clients: each limit, on each worker class and over TLS, and the good neighbours."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import hostile
import pytest
from certificates import Authority
from harness import PATIENCE, Starter, eventually
from hostile import CHUNKED, HEAD, POST, Target
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
    answer, after = hostile.closed(target, data, drip)
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
            answer, _ = hostile.closed(target, data, drip)
            assert not status or answer.split(b" ")[1:2] == [status], (data, answer)

        works.append(work)
    good = hostile.GOOD_ASGI if target.interface == "asgi" else hostile.GOOD
    hostile.at_once([*works, *(functools.partial(each, target) for each in good)])
    for reason, counted in before.items():
        new = [each for each in SLOW.values() if each[0] == reason]
        assert target.refused(reason) == counted + len(new), reason
    assert target.refused("send_timeout") == cut + 1
    assert "refused 127.0.0.1: head timeout" in target.app.stderr + target.app.stdout


def takes_nothing(target: Target) -> None:
    with target.connect(size=4096) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: target.refused("send_timeout"), "it is cut")
        assert len(hostile.read_all(sock)) < hostile.LARGE


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
        taken, _ = hostile.flooded(target, head, unit)
        assert taken < 16_000_000, shape  # the kernels' buffers are in it
    assert target.serves() < 3


@variants(WHOLE, LOOPS[1])
def test_a_message_of_many_fragments_is_refused(target: Target):
    if target.interface == "wsgi":
        return  # it has none
    before = target.refused("websocket")
    with hostile.open_websocket(target) as sock:
        sock.sendall(b"\x02\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 10_100)
        assert b"\x03\xf0" in hostile.read_all(sock)  # 1008
    eventually(lambda: target.refused("websocket") == before + 1, "it is counted")


HTTP2 = [*hostile.FLOODS, hostile.large_list]


def ends_with_goaway(target: Target, flood: Callable[[int], bytes]) -> None:
    before = target.refused("http2")
    slowest, done = [0.0], threading.Event()

    def neighbour() -> None:
        while not done.is_set():
            slowest[0] = max(slowest[0], target.serves())

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        answer = hostile.http2_flood(target, flood, 20_000)
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
    ends_with_goaway(target, hostile.rapid_reset)
    ends_with_goaway(target, hostile.continuations)


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
    with hostile.open_websocket(target) as sock:
        assert b"\x89" in hostile.read_all(sock)  # a ping
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
    assert hostile.read_all(silent[0]) == b""
    assert target.is_full()
    for each in silent:
        each.close()
    eventually(lambda: not target.is_full(), "it is not full any more")


@worker_classes("asyncio", "uvloop", "trio")
def test_a_tls_handshake_has_the_time_of_a_head(mooring, tmp_path, worker_class):
    pair = Authority(tmp_path).issue(7)
    target = Target(mooring, "asgi", pair, MOORING_ENGINE="hypercorn", WORKER_CLASS=worker_class)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", target.app.port), PATIENCE) as sock:
        assert hostile.read_all(sock) == b""
    assert time.monotonic() - began > 1
