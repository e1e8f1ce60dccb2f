"""The limits of time of hypercorn's connections, with a clock of the test's own."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

from hypercorn.asyncio.worker_context import EventWrapper

from mooring.engines.hypercorn.connections import _Limited
from mooring.engines.hypercorn.h2 import DrainingH2Protocol, _CountedBuffer
from mooring.engines.hypercorn.limits import Watch


def limits(clock: float) -> SimpleNamespace:
    return SimpleNamespace(clock=clock, head_timeout=20.0, body_timeout=60.0, send_timeout=60.0, ping=20.0)


def test_what_a_stream_has_to_send_has_its_time_from_the_first_look():
    asyncio.run(waits())


async def waits() -> None:
    buffer = _CountedBuffer(EventWrapper)
    buffer.buffer.extend(b"answer")
    protocol = SimpleNamespace(
        streams={}, stream_buffers={1: buffer}, keep_alive_requests=1, refuse=print, connection=None
    )
    connection = SimpleNamespace(head_at=None)
    protocol.connection = SimpleNamespace(incoming_buffer=None)
    given = limits(1000.0)  # a worker that has been there for long
    watch, steps = Watch(given, []), []
    watch._look_at_http2(connection, protocol, steps)
    given.clock += 59
    watch._look_at_http2(connection, protocol, steps)
    assert not steps
    given.clock += 2
    watch._look_at_http2(connection, protocol, steps)
    assert len(steps) == 1


def silence(taken: object) -> int:
    """How many steps a WebSocket's silence has led to after two minutes."""
    given = limits(0.0)
    stream = SimpleNamespace(state=None, heard=True, heard_at=None, ask=print, refuse=print)
    watch, steps = Watch(given, []), []
    for _ in range(120):
        given.clock += 1
        watch._look_at_websocket(SimpleNamespace(taken=taken), stream, steps)
        if len(steps) > 1:
            break
    return len(steps)


def test_a_ping_that_waits_behind_what_a_client_takes_needs_no_answer_yet():
    assert silence(None) == 2
    assert silence((1000, 0, 0)) == 1


class Stream:
    """trio's, with a socket of a kind."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.socket, self.sent = SimpleNamespace(family=family), bytearray()

    async def send_all(self, data: bytes) -> None:
        self.sent += data


class Connection(_Limited):
    def __init__(self, family: socket.AddressFamily) -> None:
        self.stream = Stream(family)


def test_what_a_client_takes_over_a_unix_socket_is_seen_on_trio():
    whole = bytes(range(256)) * 1000
    connection, other = Connection(socket.AF_UNIX), Connection(socket.AF_INET)
    for each in (connection, other):
        each._count_parts()
        asyncio.run(each.stream.send_all(whole))
        asyncio.run(each.stream.send_all(b""))
        assert bytes(each.stream.sent) == whole
    assert connection.passed > 15
    assert other.passed == 0


def test_the_answer_to_a_refused_stream_comes_before_its_reset():
    done: list[str] = []

    def note(what: str):
        async def noted(*_arguments: object) -> None:
            done.append(what)

        return noted

    connection = SimpleNamespace(
        send_headers=lambda *_, **__: done.append("answer"), reset_stream=lambda *_: done.append("reset")
    )
    protocol: Any = SimpleNamespace(
        limits=SimpleNamespace(refused=lambda *_: None),
        client=None,
        streams={},
        stream_buffers={},
        connection=connection,
        context=SimpleNamespace(sleep=note("pause")),
        idle=True,
        _flush=note("flush"),
        _window_updated=note("window"),
        send=note("send"),
    )
    asyncio.run(DrainingH2Protocol.refuse(protocol, 1, "body_size", 413))
    assert done[:5] == ["answer", "flush", "pause", "reset", "flush"]
