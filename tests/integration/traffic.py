"""Full load on kept-alive connections, in a process of its own, with every response checked.

    with Traffic(app.port) as traffic:      # APP or WSGI_APP must be what is served
        ...
    assert traffic.failed == {}, traffic.found
    traffic.ok["fast"]                      # how many responses were right, by route

Its clients honour `Connection: close`: after it they come back on another connection, else they send the next
request on the same one. A connection that ends without that word is a failure, also between two requests:
the client `paused` waits for PAUSE seconds between them, which is less than any idle time in a drain. So a
failure is never the client's own. A WebSocket may be closed with 1012.

Where this process has stood still for STALL seconds (a busy machine), a drain may take its clients for idle:
connections that end before an answer began, in the second after that, count as `stalled`, and begin anew.

`failures` tells of each: when (time.monotonic), route, kind, and the pid of the worker that had answered on
this connection before, 0 where none had.

Kinds of failure: refused; reset before, reset amid, or cut (the end came too early); wrong (status or body);
closed idle; timeout; for a WebSocket also its close code. `python traffic.py PORT` runs it until its stdin
ends; it prints a line once each client has had an answer, and the result.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import json
import select
import socket
import struct
import subprocess
import sys
import time
import zlib

PAUSE = 0.3  # seconds
TIMEOUT = 20.0  # seconds for one response
STALL = 0.6  # seconds; with PAUSE less than the idle time in a drain, MOORING_DRAIN_IDLE=1
BIG = b"0123456789abcdef" * 4096
PIECES = 8  # of an upload or a stream, with TICK seconds between them
TICK = 0.01

APP = """
import asyncio, os, zlib

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-worker", b"%d" % os.getpid())]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    path, query = scope["path"], scope["query_string"]
    body = path[1:].encode() + b" " + query
    headers = [(b"content-type", b"text/plain"), (b"x-worker", b"%d" % os.getpid())]
    if path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(8):
            await send({"type": "http.response.body", "body": body + b";", "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body"})
        return
    if path == "/slow":
        await asyncio.sleep(0.05)
    if path == "/upload":
        crc, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            crc, more = zlib.crc32(message.get("body", b""), crc), message.get("more_body")
        body += b" %d" % crc
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

WSGI_APP = """
import os, time, zlib

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = (path[1:] + " " + environ["QUERY_STRING"]).encode()
    headers = [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))]
    if path == "/stream":
        start_response("200 OK", headers)
        def parts():
            for _ in range(8):
                yield body + b";"
                time.sleep(0.01)
        return parts()
    if path == "/slow":
        time.sleep(0.05)
    if path == "/upload":
        crc, left = 0, int(environ["CONTENT_LENGTH"])
        while left and (piece := environ["wsgi.input"].read(min(left, 8192))):
            crc, left = zlib.crc32(piece, crc), left - len(piece)
        body += b" %d" % crc
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]
"""


class Traffic:
    """The load, as a context manager; its results are there after the `with` block, or `stop`."""

    def __init__(self, port: int, connections: int = 16, websockets: int = 1, host: str = "127.0.0.1"):
        self.command = [sys.executable, __file__, str(port), str(connections), str(websockets), host]
        self.found: dict = {}

    def __enter__(self):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout.readline() == "under load\n"
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """End the load, what is in flight after its answer; returns all that was found."""
        if not self.found:
            out, _ = self.process.communicate()
            self.found = json.loads(out)
        return self.found

    @property
    def ok(self) -> dict[str, int]:
        return self.found["ok"]

    @property
    def failed(self) -> dict[str, int]:
        """How many of each "ROUTE: KIND"; empty where all went well."""
        return self.found["failed"]

    @property
    def failures(self) -> list[list]:
        """Each failed request: when, route, kind, the connection's worker."""
        return self.found["failures"]

    @property
    def total(self) -> int:
        return sum(self.ok.values())


class Failure(Exception):
    """One failed request; its text is the kind."""


class Load:
    """The clients are generators: they yield a socket to read from, or the seconds to sleep."""

    def __init__(self, host, port):
        self.address = host, port
        self.ok, self.failed = collections.Counter(), collections.Counter()
        self.first: list[str] = []  # of each failure: when, what
        self.failures: list[tuple] = []
        self.connections = self.announced = self.stalled = 0
        self.turn, self.stood = (
            time.monotonic(),
            float("-inf"),
        )  # the loop's last turn; when this process went on after it had stood still
        self.numbers = itertools.count()
        self.ending = False
        self.epoll = select.epoll()
        self.waiting: dict = {}  # by descriptor: its client, and until when it waits
        self.asleep: list = []

    def run(self, clients):
        self.left = len(clients)
        unanswered, self.began = self.left, time.monotonic()
        for client in clients:
            self.step(client, None)
        self.epoll.register(0, select.EPOLLIN)
        look, self.turn = 0.0, self.began
        while self.left:
            events = self.epoll.poll(self.patience())
            self.note_stall()
            self.turn = time.monotonic()
            for fd, _ in events:
                if fd == 0:
                    self.ending = True
                    self.epoll.unregister(0)
                elif fd in self.waiting:
                    self.step(self.waiting.pop(fd)[0], None)
            now = time.monotonic()
            while self.asleep and self.asleep[0][0] <= now:
                self.step(heapq.heappop(self.asleep)[2], None)
            if now > look:
                look = now + 0.2
                for fd in [fd for fd, (_, until) in self.waiting.items() if until < now]:
                    self.step(self.waiting.pop(fd)[0], Failure("timeout"))
            if unanswered and len(self.ok) + len(self.failed) >= self.routes:
                unanswered = 0
                print("under load", flush=True)

    def patience(self):
        return 0.2 if not self.asleep else min(0.2, max(0.0, self.asleep[0][0] - time.monotonic()))

    def step(self, client, error):
        try:
            wanted = client.throw(error) if error else next(client)
        except StopIteration:
            self.left -= 1
            return
        if isinstance(wanted, float):
            heapq.heappush(self.asleep, (time.monotonic() + wanted, next(self.numbers), client))
        else:
            self.waiting[wanted.fileno()] = client, time.monotonic() + TIMEOUT

    def connect(self):
        try:
            sock = socket.create_connection(self.address, 5)
        except OSError as error:
            raise Failure("refused") from error
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # By edges: who waits has read all there was before. No system call per wait.
        self.epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self.connections += 1
        return sock

    def note_stall(self):
        now = time.monotonic()
        if now - self.turn > STALL:
            self.stood = now

    def fail(self, route, kind, worker):
        self.note_stall()
        if str(kind) in {"reset before", "closed idle"} and time.monotonic() - self.stood < 1:
            self.stalled += 1
            return
        self.failures.append((time.monotonic(), route, str(kind), worker))
        self.failed[f"{route}: {kind}"] += 1
        if len(self.first) < 20:
            self.first.append(f"{time.monotonic() - self.began:.3f} s, {route}: {kind}")

    def client(self, route):
        """One kept-alive connection after the other."""
        sock, worker = None, [0]
        while not self.ending:
            try:
                if sock is None:
                    worker[0] = 0
                    sock = self.connect()
                last = yield from exchange(sock, route, next(self.numbers), worker)
                self.ok[route] += 1
                if last:
                    self.announced += 1
                    sock = sock.close()
                elif route == "paused":
                    yield from pause(sock)
            except Failure as failure:
                self.fail(route, failure, worker[0])
                sock = sock.close() if sock is not None else None
                yield 0.01
        if sock is not None:
            sock.close()

    def websocket(self):
        sock, worker = None, [0]
        while not self.ending:
            try:
                if sock is None:
                    worker[0] = 0
                    sock = self.connect()
                    data = bytearray()
                    yield from handshake(sock, data, worker)
                code = yield from echo(sock, data, next(self.numbers))
                if code:
                    if code != 1012:
                        raise Failure(f"close {code}")
                    self.announced += 1
                    sock = sock.close()
                self.ok["websocket"] += 1
            except Failure as failure:
                self.fail("websocket", failure, worker[0])
                sock = sock.close() if sock is not None else None
                yield 0.01
        if sock is not None:
            sock.close()


def exchange(sock, route, number, worker):
    """One request; returns whether its response was announced to be the connection's last."""
    body = b""
    query = b"n=%d" % number
    want = (b"fast" if route == "paused" else route.encode()) + b" " + query
    head = b" /%s?%s HTTP/1.1\r\nhost: t\r\n" % (want.split(b" ")[0], query)
    if route == "upload":
        body = BIG[number % 1000 :]
        yield from send(sock, b"POST" + head + b"content-length: %d\r\n\r\n" % len(body))
        size = len(body) // PIECES + 1
        for at in range(0, len(body), size):
            yield from send(sock, body[at : at + size])
            yield TICK
        want += b" %d" % zlib.crc32(body)
    else:
        yield from send(sock, b"GET" + head + b"\r\n")
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        yield from receive(sock, data)
    fields = bytes(data[:end]).lower().split(b"\r\n")
    del data[: end + 4]
    worker[0] = pid_in(fields)
    if not fields[0].startswith(b"http/1.1 200"):
        raise Failure(f"wrong: {fields[0].decode('latin-1')}")
    if b"transfer-encoding: chunked" in fields:
        got = yield from chunks(sock, data)
        want = (want + b";") * PIECES
    else:
        lengths = [int(field[15:]) for field in fields if field.startswith(b"content-length:")]
        while not lengths or len(data) < lengths[0]:
            if (yield from receive(sock, data, end_of_body=not lengths)):
                break
        got = bytes(data)
        want = want if lengths else (want + b";") * PIECES
    if got != want:
        raise Failure(f"wrong: {got[:60]!r} instead of {want[:60]!r}")
    return b"connection: close" in fields


def chunks(sock, data):
    """A chunked body."""
    got = b""
    while True:
        while (end := data.find(b"\r\n")) < 0:
            yield from receive(sock, data, begun=True)
        size = int(data[:end], 16)
        while len(data) < end + size + 4:
            yield from receive(sock, data, begun=True)
        got += data[end + 2 : end + 2 + size]
        del data[: end + size + 4]
        if not size:
            if data:
                raise Failure("wrong: more than was asked for")
            return got


def send(sock, data):
    """All of it. The server may end the connection meanwhile."""
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            yield 0.002
        except OSError as error:
            raise Failure("reset before") from error


def receive(sock, data, begun=False, end_of_body=False):
    """Something more; true at the end of a body that the connection's end ends."""
    begun = begun or bool(data)
    while True:
        try:
            piece = sock.recv(262_144)
        except BlockingIOError:
            yield sock
            continue
        except OSError as error:
            raise Failure("reset amid" if begun else "reset before") from error
        if piece:
            data += piece
        elif not end_of_body:
            raise Failure("cut" if begun else "reset before")
        return not piece


def pause(sock):
    """Be idle for a while; the server must not end the connection meanwhile."""
    yield PAUSE
    with contextlib.suppress(BlockingIOError):
        try:
            raise Failure("wrong: unasked" if sock.recv(1) else "closed idle")
        except ConnectionError as error:
            raise Failure("closed idle") from error


def pid_in(fields):
    """The pid in the field x-worker; 0 where there is none."""
    return next((int(field[9:]) for field in fields if field.startswith(b"x-worker:")), 0)


def handshake(sock, data, worker):
    """The upgrade; `data` is what came behind it."""
    yield from send(
        sock,
        b"GET /ws HTTP/1.1\r\nhost: t\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    while (end := data.find(b"\r\n\r\n")) < 0:
        yield from receive(sock, data)
    if not data.startswith(b"HTTP/1.1 101"):
        raise Failure(f"wrong: {bytes(data).splitlines()[0].decode('latin-1')}")
    worker[0] = pid_in(bytes(data[:end]).lower().split(b"\r\n"))
    del data[: end + 4]


def echo(sock, data, number):
    """A message and its answer; the code where the server closes instead. `data` is what has come before."""
    text = b"message %d" % number
    yield from send(sock, bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)  # a mask of zeros
    while True:
        while len(data) < 2 or len(data) < 2 + data[1]:
            yield from receive(sock, data)
        kind, payload = data[0] & 15, bytes(data[2 : 2 + data[1]])
        del data[: 2 + data[1]]
        if kind == 8:
            with contextlib.suppress(Failure):
                yield from send(sock, bytes([0x88, 0x80 | len(payload)]) + bytes(4) + payload)
            return struct.unpack("!H", payload[:2])[0] if payload else 1005
        if kind == 9:
            yield from send(sock, bytes([0x8A, 0x80 | len(payload)]) + bytes(4) + payload)
        elif kind == 1:
            if payload != text:
                raise Failure(f"wrong: {payload!r} instead of {text!r}")
            yield 0.001
            return 0


def main(port, connections="16", websockets="1", host="127.0.0.1"):
    load = Load(host, int(port))
    routes = ["slow", "stream", "upload", "paused"][: max(0, int(connections) - 1)]
    routes += ["fast"] * (int(connections) - len(routes))
    load.routes = len(set(routes)) + bool(int(websockets))
    began = time.monotonic()
    load.run([load.client(route) for route in routes] + [load.websocket() for _ in range(int(websockets))])
    seconds = time.monotonic() - began
    result = {"ok": load.ok, "failed": load.failed, "first": load.first, "seconds": round(seconds, 1)}
    result["failures"] = load.failures[:100_000]
    print(
        json.dumps(
            {**result, "connections": load.connections, "announced": load.announced, "stalled": load.stalled}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
