"""What the tests of the access log and the scoreboard share: fast requests, metrics, lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socket import socket
from time import monotonic

from harness import Mooring


def metric(app: Mooring, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels, from the control socket's /metrics."""
    found = 0.0
    for line in app.control(path="/metrics").text.splitlines():
        match = re.fullmatch(rf"mooring_{name}(?:{{(.*)}})? (\S+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            found += float(match[2])
    return found


def requests(app: Mooring, paths: Iterable[str], version: str = "1.1") -> list[float]:
    """GETs on one connection, each after the last one's answer; the seconds that each took.

    Ends early, without an error, where the server goes away: what was answered is what is returned.
    """
    took: list[float] = []
    with app.connect() as sock:
        for path in paths:
            began = monotonic()
            try:
                sock.sendall(f"GET {path} HTTP/{version}\r\nhost: x\r\n\r\n".encode())
                if not _answered(sock):
                    break
            except OSError:
                break
            took.append(monotonic() - began)
    return took


def _answered(sock: socket) -> bool:
    """Read one response with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    match = re.search(rb"(?i)content-length: *(\d+)", head)
    assert match, head
    missing = int(match[1]) - len(body)
    while missing > 0:
        more = sock.recv(65536)
        if not more:
            return False
        missing -= len(more)
    return True


def numbered(prefix: str, count: int, size: int = 0) -> list[str]:
    """Different paths, of a size."""
    return [f"/{prefix}/{number}/".ljust(size, "x") for number in range(count)]


@contextmanager
def closing(*fds: int) -> Iterator[None]:
    """Close descriptors afterwards."""
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)
