"""What the harness and tests on it share: waiting, looking at processes, an HTTP answer."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 60.0


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def eventually(probe: Callable[[], Any], what: object = "it", timeout: float = PATIENCE) -> Any:
    """Ask until the answer is true; return it. For states that only /proc or the control socket shows."""
    deadline = time.monotonic() + timeout
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    """A TCP port nobody had a moment ago; prefer PORT=0.

    Below those that the kernel gives away by itself (ip_local_port_range): no client's connection, and no
    listener on port 0, takes it meanwhile.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def pids_marked(mark: str) -> list[int]:
    """The living processes whose environment holds a mark; zombies aside."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            marked = mark.encode() in Path(f"/proc/{name}/environ").read_bytes()
            if marked and Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(name))
    return found


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other side closes."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def write_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listener_pid(path: Path) -> int:
    """The pid that listens on a unix socket, 0 where nobody does."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return 0
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)
