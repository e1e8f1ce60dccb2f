"""What uvicorn's protocol reads at once: no more than is worked on, and each byte a few times at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.engines.uvicorn.limits import Limits
from mooring.engines.uvicorn.reading import SLICE, asks_upgrade, other_host

GET = b"GET / HTTP/1.1\r\n\r\n"


class Transport:
    """A connection's transport that keeps what is written."""

    def __init__(self) -> None:
        self.written, self.paused, self.closing = bytearray(), False, False

    def get_extra_info(self, _name, default=None):
        return default

    def write(self, data):
        self.written += data

    def is_closing(self):
        return self.closing

    def can_write_eof(self):
        return False

    def set_protocol(self, protocol):
        pass

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False

    def close(self):
        self.closing = True


class Counted:
    """A parser that counts the bytes of the fields that it copies: all of the last one at each call."""

    def __init__(self, parser: Any) -> None:
        self.parser, self.calls, self.largest = parser, 0, 0

    def feed_data(self, data):
        self.calls += 1
        self.largest = max(self.largest, len(data))
        self.parser.feed_data(data)

    def __getattr__(self, name):
        return getattr(self.parser, name)


def run(work: Callable[..., Any], app: Any = None, **limits: Any) -> Any:
    """`await work(protocol, transport)` with a new connection."""

    async def main() -> Any:
        config = Config(
            app or answering, log_config=None, lifespan="off", interface="asgi3", access_log=False
        )
        config.load()
        kind = type("Protocol", (LimitedHttpToolsProtocol,), {"limits": Limits(**limits), "__slots__": ()})
        protocol = kind(config=config, server_state=ServerState(), app_state={})
        transport = Transport()
        protocol.connection_made(transport)
        return await work(protocol, transport)

    return asyncio.run(main())


async def answering(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    text = b"%d" % size
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0)


def test_of_many_pipelined_requests_few_wait_and_all_are_answered():
    count = 10_000

    async def work(protocol, transport):
        most = 0
        protocol.data_received(GET * count)
        while (found := protocol.server_state.total_requests) < count:
            most = max(most, len(protocol.pipeline))
            assert transport.paused or found + 1000 > count
            await asyncio.sleep(0)
        return most

    assert run(work) <= 16 + SLICE / len(GET)


def test_pipelined_bodies_in_any_pieces_arrive_whole():
    data = (
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde"
        + b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    data = (data + b"3\r\nabc\r\n4\r\nabcd\r\n0\r\n\r\n") * 100

    async def work(protocol, transport, size):
        for start in range(0, len(data), size):
            await until(lambda: not transport.paused)
            protocol.data_received(data[start : start + size])
        await until(lambda: protocol.server_state.total_requests == 200)
        assert transport.written.count(b"\r\n\r\n5") == 100
        assert transport.written.count(b"\r\n\r\n7") == 100

    for size in (11, 1000, SLICE + 1, len(data)):
        run(lambda *given, size=size: work(*given, size))


@pytest.mark.parametrize("size", [1, 1000, 10**6])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_an_upgrade_that_is_ignored_takes_no_body(size, chunked):
    framing = (
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: b\r\n\r\n"
        if chunked
        else b"Content-Length: 3\r\n\r\nabc"
    )
    data = b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + framing + GET
    data += b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" * 2 + GET

    async def work(protocol, transport):
        for start in range(0, len(data), size):
            protocol.data_received(data[start : start + size])
        await until(lambda: protocol.server_state.total_requests == 5)
        assert bytes(transport.written).endswith(b"\r\n\r\n0")
        assert transport.written.index(b"\r\n\r\n3") < transport.written.index(b"\r\n\r\n0")

    run(work)


def test_a_long_head_that_drips_is_parsed_in_few_parts():
    async def work(protocol, transport, size):
        protocol.parser = Counted(protocol.parser)
        protocol.data_received(b"GET / HTTP/1.1\r\nCookie: ")
        for _ in range(size // 1000):
            protocol.data_received(b"x" * 1000)
        assert len(transport.written) == 0
        protocol.data_received(b"\r\n\r\n")
        await until(lambda: protocol.server_state.total_requests == 1)
        assert len(dict(protocol.scope["headers"])[b"cookie"]) == size
        return protocol.parser.calls

    small, large = (run(lambda *given, n=n: work(*given, n), max_head=10**8) for n in (1_000_000, 4_000_000))
    assert large < small * 1.5  # one for each piece would be four times as many


def test_fields_are_bounded_as_they_come():
    async def work(protocol, transport):
        protocol.data_received(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 50_000)
        assert b" 431 " in transport.written
        assert len(protocol.headers) < 2 * SLICE

    run(work, max_head=10**8)


def test_trailers_are_not_kept():
    async def work(protocol, transport):
        protocol.data_received(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 50_000
        )
        assert not protocol.headers
        protocol.data_received(b"\r\n")
        await until(lambda: protocol.server_state.total_requests == 1)

    run(work, max_head=10**8)


def test_a_body_of_a_known_length_is_parsed_as_it_comes():
    async def work(protocol, transport):
        protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n")
        protocol.parser = Counted(protocol.parser)
        protocol.data_received(b"x" * 200_000)
        protocol.data_received(b"x" * 100_000 + GET)
        await until(lambda: protocol.server_state.total_requests == 2)
        return protocol.parser.largest

    assert run(work) == 200_000


@pytest.mark.parametrize(
    ("value", "upgrade", "found"),
    [
        (b"Upgrade", b"WebSocket", b"websocket"),
        (b"keep-alive, upgrade ,x", b"websocket", b"websocket"),
        (b"keep-alive", b"websocket", None),
        (b"no-upgrade", b"websocket", None),
        (b"upgrades", b"websocket", None),
        (b"upgrade", None, None),
    ],
)
def test_what_asks_for_an_upgrade(value, upgrade, found):
    headers = [(b"connection", value)] + [(b"upgrade", upgrade)] * (upgrade is not None)
    assert asks_upgrade(headers) == found


@pytest.mark.parametrize(
    ("target", "host", "other"),
    [
        (b"http://a/x", b"a", False),
        (b"HTTP://A:80/x", b"a", False),
        (b"https://a?x", b"A:443", False),
        (b"http://a/x", b"b", True),
        (b"http://a:81/", b"a", True),
        (b"http://a@b/", b"a", True),
        (b"*", b"a", False),
        (b"a:443", b"b", False),
    ],
)
def test_a_target_with_another_host(target, host, other):
    assert other_host(target, [(b"host", host)]) is other
    assert not other_host(target, [])


def test_a_body_that_comes_after_the_answer_leaves_an_idle_connection():
    async def early(scope, receive, send):
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def work(protocol, transport):
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
        protocol.data_received(head + b"12345")
        await until(lambda: protocol.server_state.total_requests == 1)
        assert protocol.awaits() is None or protocol.awaits()[0] == "body"
        protocol.data_received(b"67890")
        await until(lambda: protocol.timeout_keep_alive_task is not None)
        assert protocol.awaits() is None
        assert protocol.idle_since() is not None
        # with a request behind the body, it is not idle
        protocol.data_received(head)
        await until(lambda: protocol.server_state.total_requests == 2)
        protocol.data_received(b"1234567890" + head[:10])
        for _ in range(5):
            await asyncio.sleep(0)
        assert protocol.timeout_keep_alive_task is None
        assert protocol.awaits()[0] == "head"
        protocol.connection_lost(None)

    run(work, early)
