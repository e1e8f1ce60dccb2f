"""A client that sees every byte: connections kept, requests written as the test says, answers one by one."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from engine_process import Reply, read_reply
from websockets.asyncio.client import connect

__all__ = ["Reply", "Wire", "received_over_tls", "seen"]


class Wire:
    """One connection. Give it a socket that is connected."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(
        self,
        path: str,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{name}: {value}" for name, value in headers)]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    def reply(self, method: str = "GET") -> Reply:
        """The next answer."""
        return read_reply(self.file, method)

    def ask(self, path: str, method: str = "GET", **more: Any) -> Reply:
        self.send(path, method, **more)
        return self.reply(method)

    def chunk(self, data: bytes) -> None:
        """A chunk of a chunked request body; an empty one ends it."""
        self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of an answer whose body is read by the test."""
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def next_chunk(self) -> bytes:
        """The next chunk of a chunked answer; an empty one is its end."""
        data = self.file.read(int(self.file.readline(), 16))
        self.file.readline()
        return data

    def still_open(self, seconds: float = 0.3) -> bool:
        """Whether the server keeps the connection open for so long."""
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1) != b""
        except TimeoutError:
            return True

    def rest(self) -> bytes:
        """What comes until the server closes; a reset is an end too."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b""


def seen(reply: Reply) -> dict[str, Any]:
    """What the plain application's /scope tells of a request."""
    assert reply.status == 200, reply
    found: dict[str, Any] = json.loads(reply.body)
    return found


def received_over_tls(url: str, context: ssl.SSLContext, text: str | None = None) -> str | bytes:
    """What a WebSocket at a wss:// address sends first, after `text` where that is given.

    On asyncio: the library's other client reads and writes one SSLSocket in two threads, which OpenSSL does
    not allow (openssl-threads(7)): under load, of some hundred requests one never left the client's socket.
    """

    async def receive() -> str | bytes:
        async with asyncio.timeout(60), connect(url, ssl=context, open_timeout=None, proxy=None) as sock:
            if text is not None:
                await sock.send(text)
            return await sock.recv()

    return asyncio.run(receive())
