"""Start engine_runner.py, talk to it over plain sockets, and end it: what the engines' tests share."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SRC = HERE.parent.parent / "src"
PATIENCE = 45.0


class Running:
    """A running engine: its listeners, its process and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], listeners: list[socket.socket]) -> None:
        self.process = process
        self.listeners = listeners
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._new.put(line.rstrip("\n"))
        self._new.put(None)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout: float = PATIENCE) -> str:
        """The first new line with a text in it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._new.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"no {text!r} within {timeout} s in:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"ended without {text!r}:\n{self.output}")
            if text in line:
                return line

    def signal(self, number: int = signal.SIGTERM) -> float:
        """Send a signal; the time of that."""
        self.process.send_signal(number)
        return time.monotonic()

    def ended(self, timeout: float = PATIENCE) -> int:
        """Wait for the end; the exit code. Shows the output where it takes too long."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.output}") from None
        deadline = time.monotonic() + 5
        with contextlib.suppress(queue.Empty):
            while self._new.get(timeout=max(deadline - time.monotonic(), 0.01)) is not None:
                pass
        return code

    def connect(self, number: int = 0) -> socket.socket:
        """A client's connection to a listener."""
        listener = self.listeners[number]
        client = socket.socket(listener.family, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        client.connect(listener.getsockname())
        return client

    def port(self, number: int = 0) -> int:
        return int(self.listeners[number].getsockname()[1])

    def get(
        self, path: str, number: int = 0, method: str = "GET", headers: str = "", body: bytes = b""
    ) -> Reply:
        """One request on a connection of its own."""
        with self.connect(number) as client:
            send(client, path, method, headers + "Connection: close\r\n", body)
            return receive(client, method)

    def json(self, path: str, number: int = 0, headers: str = "") -> dict[str, Any]:
        reply = self.get(path, number, headers=headers)
        assert reply.status == 200, (reply, self.output)
        found: dict[str, Any] = json.loads(reply.body)
        return found


class Reply:
    """An answer: status, headers in lower case (several of a name in a list), body without chunks."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.pairs, self.body = status, headers, body
        self.headers = dict(headers)

    def __repr__(self) -> str:
        return f"{self.status} {self.pairs} {self.body!r}"

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]


def send(client: socket.socket, path: str, method: str = "GET", headers: str = "", body: bytes = b"") -> None:
    """Send a request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    client.sendall(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{length}{headers}\r\n".encode() + body)


def receive(client: socket.socket, method: str = "GET") -> Reply:
    """Read one answer."""
    with client.makefile("rb") as file:
        return read_reply(file, method)


def read_reply(file: Any, method: str = "GET") -> Reply:
    """Read one answer from a file; the file may hold the next one."""
    first = file.readline()
    if not first:
        raise ConnectionResetError("closed without an answer")
    status = int(first.split()[1])
    headers = []
    while line := file.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name.lower(), value.strip()))
    found = dict(headers)
    if method == "HEAD" or status in {100, 101, 204, 304}:
        return Reply(status, headers, b"")
    if found.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(file.readline().split(b";")[0], 16):
            body += file.read(size)
            file.readline()
        file.readline()
    elif "content-length" in found:
        body = file.read(int(found["content-length"]))
    else:
        body = file.read()
    return Reply(status, headers, body)


def listen(family: int = socket.AF_INET, path: Path | None = None) -> socket.socket:
    """A listener, as the supervisor makes it."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    if path is not None:
        listener.bind(str(path))
    else:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    listener.listen(128)
    return listener


@contextlib.contextmanager
def running(
    engine: str,
    target: str,
    *settings: str,
    interface: str = "asgi",
    listeners: list[socket.socket] | None = None,
    environ: dict[str, str] | None = None,
    ready: bool = True,
    cwd: Path | None = None,
) -> Iterator[Running]:
    """An engine that serves one of engine_apps' applications; killed at the end where it still runs."""
    listeners = [listen()] if listeners is None else listeners
    fds = [listener.fileno() for listener in listeners]
    command = [sys.executable, str(HERE / "engine_runner.py"), engine, target, interface]
    command += [",".join(map(str, fds)), *settings]
    clean = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
    paths = f"{SRC}{os.pathsep}{HERE}"
    process = subprocess.Popen(
        command,
        pass_fds=fds,
        env={**clean, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        start_new_session=True,
    )
    started = Running(process, listeners)
    try:
        if ready:
            started.wait_for("READY")
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for listener in listeners:
            listener.close()
