"""What the tests of the drain share on all engines: raw clients that are there when a stop begins."""

from __future__ import annotations

import signal
import socket
import time

from harness import Mooring, eventually, read_all

UPGRADE = (
    "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
CLOSE_1012 = b"\x88\x02" + (1012).to_bytes(2, "big")
CLOSE = b"\r\nconnection: close\r\n"


def request(app: Mooring, path: str, head: str = "", method: str = "GET") -> socket.socket:
    """A connection on which this has been sent."""
    client = app.connect()
    client.sendall(f"{method} {path} HTTP/1.1\r\nhost: t\r\n{head}\r\n".encode())
    return client


def read_until(client: socket.socket, end: bytes) -> bytes:
    """All until it ends so."""
    received = b""
    while not received.endswith(end):
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received


def come_back(kept: socket.socket) -> None:
    """Ask again on an idle connection until the answer tells that it is the last: the drain has reached it.

    "stopping" is logged before the worker has heard of it: until then answers come as ever.
    """

    def told() -> bool:
        kept.sendall(b"GET /fast?again HTTP/1.1\r\nhost: t\r\n\r\n")
        answer = read_until(kept, b"fast again")
        assert answer.startswith(b"HTTP/1.1 200")
        return CLOSE in answer.lower()

    eventually(told, "Connection: close")
    assert kept.recv(1) == b""


def stop_in_a_stream_and_an_upload(app: Mooring) -> None:
    """TERM while both are in flight: both are finished, and only then the supervisor ends."""
    body = b"x" * 50_000
    with request(app, "/upload?u", f"content-length: {len(body)}\r\n", "POST") as upload:
        upload.sendall(body[:10_000])
        app.wait_status(lambda s: any(each["path"] == "/upload" for each in s["requests_in_flight"]))
        stream = request(app, "/stream?s")
        first = stream.recv(65536)
        app.signal(signal.SIGTERM)  # at once: the stream is short
        assert first.startswith(b"HTTP/1.1 200")
        app.wait_log("stopping")
        for at in range(10_000, len(body), 10_000):
            time.sleep(0.1)  # a slow sender
            upload.sendall(body[at : at + 10_000])
        assert b"upload u" in read_all(upload)
        with stream:
            whole = first + read_all(stream)
        assert whole.count(b"stream s;") == 8
        assert whole.endswith(b"0\r\n\r\n")
    assert app.wait_exit() == 0
