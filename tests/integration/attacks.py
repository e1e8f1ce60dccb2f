"""Clients that misbehave, and those that only look so: for every engine. The applications, the attacks."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from harness import PATIENCE, Mooring, Starter
from hyperframe import frame
from wire import Wire

# Short times, so that tests are short; every limit that a size has.
LIMITS = {
    "MOORING_HEAD_TIMEOUT": "2",
    "MOORING_BODY_TIMEOUT": "2",
    "MOORING_SEND_TIMEOUT": "2",
    "MOORING_KEEP_ALIVE": "30",
    "MOORING_MAX_HEAD": "16K",
    "MOORING_MAX_FIELDS": "50",
    "MOORING_MAX_BODY": "100000",
    "WEB_CONCURRENCY": "1",
}
LARGE = 64 * 2**20  # bytes: more than any kernel's buffers

APP = f"""
import asyncio, sys, time
async def pause(seconds):
    if "trio" in sys.modules:
        import trio
        if trio.lowlevel.in_trio_task():
            return await trio.sleep(seconds)
    await asyncio.sleep(seconds)
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({{"type": "lifespan.startup.complete"}})
        return await send({{"type": "lifespan.shutdown.complete"}})
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        while (message := await receive())["type"] != "websocket.disconnect":
            size = len(message.get("bytes") or message["text"])
            await send({{"type": "websocket.send", "text": str(size)}})
        return
    path, size = scope["path"], 0
    if path == "/think":
        await pause(5)
    if path not in ("/unread", "/think"):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
    kind = [(b"content-type", b"text/plain")]
    await send({{"type": "http.response.start", "status": 200, "headers": kind}})
    if path == "/large":
        for _ in range({LARGE} // 65536):
            await send({{"type": "http.response.body", "body": b"x" * 65536, "more_body": True}})
    if path == "/events":
        for _ in range(2):
            await send({{"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True}})
            await pause(4)
    await send({{"type": "http.response.body", "body": b"%d" % size}})
def wsgi(environ, start_response):
    path, size = environ["PATH_INFO"], 0
    if path == "/think":
        time.sleep(5)
    if path not in ("/unread", "/think"):
        size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/large":
        return (b"x" * 65536 for _ in range({LARGE} // 65536))
    return [b"%d" % size]
"""
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(b"x" * 16) + b"\r\n"
)


class Target:
    """A server with LIMITS; `tls` is (certificate, key); `unix`: at a unix socket."""

    def __init__(
        self,
        starter: Starter,
        interface: str,
        tls: tuple[object, object] | None = None,
        *,
        unix: bool = False,
        **environ: Any,
    ) -> None:
        self.path = str(starter.base / "hostile.sock") if unix else ""
        if unix:
            environ |= {"MOORING_BIND": f"unix:{self.path}", "PORT": None}
        if tls is not None:
            environ |= {"MOORING_TLS_CERTIFICATE": tls[0], "MOORING_TLS_KEY": tls[1]}
        self.interface, self.secure = interface, tls is not None
        files = {"hostile_app.py": APP, **environ.pop("files", {})}
        self.app: Mooring = starter.run(f"hostile_app:{interface}", files=files, **{**LIMITS, **environ})

    def connect(self, *protocols: str, size: int = 0) -> socket.socket:
        """A connection; `size` is that of its buffer for what it receives."""
        plain = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        if size:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        plain.settimeout(PATIENCE)
        plain.connect(self.path or ("127.0.0.1", self.app.port))
        if not self.secure:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols or ("http/1.1",)))
        return context.wrap_socket(plain, server_hostname="localhost")

    def refused(self, reason: str) -> int:
        """How many were refused for a reason: the metric."""
        start = f'mooring_http_refused_total{{reason="{reason}"}} '
        lines = self.app.control(path="/metrics").body.decode().splitlines()
        return sum(int(float(line.removeprefix(start))) for line in lines if line.startswith(start))

    def is_full(self) -> bool:
        """Whether readiness says so; it stays ready."""
        answer = self.app.control(path="/readyz")
        assert answer.status == 200
        return b"most connections" in answer.body

    def serves(self) -> float:
        """Ask as a good client does; the seconds that it took."""
        began = time.monotonic()
        with self.connect() as sock:
            sock.sendall(b"GET /unread HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 200 " in read_all(sock)
        return time.monotonic() - began


def read_all(sock: socket.socket) -> bytes:
    """All until the server closes. A reset counts as the end, a server that stays does not."""
    found = b""
    try:
        while data := sock.recv(65536):
            found += data
    except TimeoutError:
        raise AssertionError(f"the server has not closed; it sent {found[:200]!r}") from None
    except OSError:
        pass
    return found


def closed(target: Target, data: bytes, drip: bytes = b"", pace: float = 0.3) -> tuple[bytes, float]:
    """Send `data`, then `drip` again and again; what came until the server closed, and after what time."""
    began = time.monotonic()
    with target.connect() as sock:
        done = threading.Event()

        def dripping() -> None:
            while drip and not done.wait(pace):
                try:
                    sock.sendall(drip)
                except OSError:
                    return

        sock.sendall(data)
        thread = threading.Thread(target=dripping)
        thread.start()
        try:
            return read_all(sock), time.monotonic() - began
        finally:
            done.set()
            thread.join()


def flooded(target: Target, head: bytes, unit: bytes, most: int = 40_000_000) -> tuple[int, bytes]:
    """Send `unit` until the server has enough; how many bytes it took, and its answer."""
    with target.connect() as sock:
        sent = 0
        try:
            sock.sendall(head)
            while sent < most:
                sock.sendall(unit)
                sent += len(unit)
        except OSError:
            pass
        return sent, read_all(sock)


def at_once(works: Iterable[Callable[[], object]]) -> None:
    """Run each in a thread; raise the first error."""
    errors: list[BaseException] = []

    def attempt(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if errors:
        raise errors[0]


# -- clients that are good ---------------------------------------------------------------------------------


def waits_for_a_slow_application(target: Target) -> None:
    with target.connect() as sock:
        sock.sendall(b"GET /think HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 " in read_all(sock)


def stays_idle(target: Target) -> None:
    with Wire(target.connect()) as wire:
        for _ in range(3):
            assert wire.ask("/unread").status == 200
            time.sleep(3)  # longer than the time for a head


def uploads_steadily(target: Target) -> None:
    with target.connect() as sock:
        sock.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000\r\n\r\n")
        for _ in range(9):
            time.sleep(0.6)  # the pace is what is tested
            sock.sendall(b"x" * 1000)
        assert b"9000" in read_all(sock)


def reads_steadily(target: Target) -> None:
    with target.connect(size=65536) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for _ in range(12):
            time.sleep(0.5)  # the pace is what is tested
            got = 0
            while got < 100_000:
                data = sock.recv(65536)
                assert data
                got += len(data)


def follows_events(target: Target) -> None:
    with target.connect() as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(sock).count(b"data: x") == 2


def has_a_quiet_websocket(target: Target) -> None:
    with open_websocket(target) as sock:
        time.sleep(5)  # longer than all times
        sock.sendall(b"\x82\x81\0\0\0\0x")
        assert sock.recv(4096)


GOOD = [waits_for_a_slow_application, stays_idle, uploads_steadily, reads_steadily]
GOOD_ASGI = [*GOOD, follows_events, has_a_quiet_websocket]


def open_websocket(target: Target) -> socket.socket:
    sock = target.connect()
    key = base64.b64encode(os.urandom(16))
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    assert b" 101 " in sock.recv(4096)
    return sock


# -- HTTP/2, frame by frame ---------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# :method GET, :scheme http, :path /, :authority x: RFC 7541, A
REQUEST = bytes([0x82, 0x86, 0x84, 0x41, 1]) + b"x"


def headers(stream: int, block: bytes = REQUEST, *flags: str) -> bytes:
    made = frame.HeadersFrame(stream, block)
    made.flags |= set(flags or ("END_HEADERS", "END_STREAM"))
    return made.serialize()


def rapid_reset(number: int) -> bytes:
    stream = 2 * number + 1
    return headers(stream) + frame.RstStreamFrame(stream, error_code=8).serialize()


def pings(number: int) -> bytes:
    return frame.PingFrame(0, opaque_data=b"%08d" % number).serialize()


def settings(number: int) -> bytes:
    return frame.SettingsFrame(0, settings={3: number + 1}).serialize()


def empty_data(number: int) -> bytes:
    return (headers(1, REQUEST, "END_HEADERS") if not number else b"") + frame.DataFrame(1, b"").serialize()


def continuations(number: int) -> bytes:
    if not number:
        return headers(1, REQUEST, "END_STREAM")
    return frame.ContinuationFrame(1, b"").serialize()


def streams(number: int) -> bytes:
    return headers(2 * number + 1, REQUEST, "END_HEADERS")


def large_list(number: int) -> bytes:
    field = b"\x40\x01a\x7f\x81\x3e" + b"v" * 8128  # 127 + 8001: a literal of 8128 bytes
    return headers(1, REQUEST + field, "END_STREAM") if not number else _more(number, b"\xbe" * 1000)


def _more(number: int, block: bytes) -> bytes:
    made = frame.ContinuationFrame(1, block)
    if number == 10:
        made.flags.add("END_HEADERS")
    return made.serialize() if number <= 10 else b""


FLOODS = [rapid_reset, pings, settings, empty_data, continuations, streams]


def http2_flood(target: Target, flood: Callable[[int], bytes], most: int = 60_000) -> list[frame.Frame]:
    """Send frames until the server has enough of them, or `most`; what it answered."""
    with target.connect("h2") as sock:
        answer, ended = bytearray(), threading.Event()

        def reading() -> None:
            try:
                while data := sock.recv(65536):
                    answer.extend(data)
            except OSError:
                pass
            ended.set()

        sock.sendall(PREFACE + frame.SettingsFrame(0).serialize())
        thread = threading.Thread(target=reading)
        if not target.secure:  # a TLS socket is for one thread
            thread.start()
        try:
            for first in range(0, most, 100):
                if ended.is_set():
                    break
                sock.sendall(b"".join(flood(number) for number in range(first, first + 100)))
        except OSError:
            pass
        if target.secure:
            reading()
        elif not ended.wait(PATIENCE):
            raise AssertionError("the server has not closed")
        if thread.ident:
            thread.join()
    return frames(bytes(answer))


def frames(data: bytes) -> list[frame.Frame]:
    found = []
    while len(data) >= 9:
        each, length = frame.Frame.parse_frame_header(memoryview(data)[:9])
        if len(data) < 9 + length:
            break
        each.parse_body(memoryview(data)[9 : 9 + length])
        found.append(each)
        data = data[9 + length :]
    return found
