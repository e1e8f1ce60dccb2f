"""One `mooring` process under test: what it says, its control socket, requests, signals. See harness.py."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_tools import PATIENCE, Reply, eventually, listener_pid, pids_marked, read_all, write_file

if TYPE_CHECKING:
    from harness import Starter

_MARK = "HARNESS_ID"


class Mooring:
    """One `mooring ...` process. `stdout` and `stderr` are its output so far."""

    def __init__(
        self, starter: Starter, command: Sequence[str], environ: dict[str, str], **options: Any
    ) -> None:
        self.folder, self.runtime, self.command = starter.folder, starter.runtime, list(command)
        self.mark = uuid.uuid4().hex
        self.leftovers: list[int] = []
        self._output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._changed = threading.Condition()
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
            **options,
        }
        self.process = subprocess.Popen(
            self.command,
            env={**environ, _MARK: self.mark},
            start_new_session=True,
            text=True,
            errors="replace",
            **{"cwd": starter.folder, **options},
        )
        self._readers = []
        for name in ("stdout", "stderr"):
            stream = getattr(self.process, name)
            if stream is not None and options[name] == subprocess.PIPE:
                thread = threading.Thread(target=self._read, args=(name, stream), daemon=True)
                thread.start()
                self._readers.append(thread)

    def _read(self, name: str, stream: Any) -> None:
        with stream:  # thousands of tests in one process: each descriptor counts
            for line in stream:
                with self._changed:
                    self._output[name].append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    # -- what it says --------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return "".join(self._output["stdout"])

    @property
    def stderr(self) -> str:
        return "".join(self._output["stderr"])

    @property
    def last_line(self) -> str:
        """The last line of stderr that is not empty."""
        return next((line for line in reversed(self.stderr.splitlines()) if line.strip()), "")

    def report(self) -> str:
        """For a failed test."""
        head = f"$ {' '.join(self.command)}   (exit code {self.process.poll()})"
        return f"{head}\n{self.stdout}\n--- stderr\n{self.stderr}"

    def wait_log(self, wanted: str | re.Pattern[str], count: int = 1, timeout: float = PATIENCE) -> str:
        """The first line (or the `count`th) on stderr or stdout that holds a text or matches a pattern."""
        pattern = re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                lines = [
                    line for line in self._output["stderr"] + self._output["stdout"] if pattern.search(line)
                ]
                if len(lines) >= count:
                    return lines[count - 1].rstrip("\n")
                ended = not any(reader.is_alive() for reader in self._readers)
                assert not ended, f"ended without {pattern.pattern!r}"
                assert time.monotonic() < deadline, f"no {pattern.pattern!r} within {timeout:g} s"
                self._changed.wait(0.5)

    def wait_exit(self, timeout: float = PATIENCE) -> int:
        """Its exit code, once it has ended and all its output is read. Notes who is left running."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s") from None
        self.leftovers = pids_marked(self.mark)
        for reader in self._readers:
            reader.join(5 if not self.leftovers else 0.2)
        return code

    # -- the control socket --------------------------------------------------------------------------------

    def control(self, method: str = "GET", path: str = "/status") -> Reply:
        """One request over the control socket; ConnectionError while there is none."""
        ours = [path for path in self.runtime.glob("*/control.sock") if self._is_ours(listener_pid(path))]
        if not ours:
            raise ConnectionError("no control socket")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(ours[0]))
            sock.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
        return Reply(int(head.split()[1]), {}, body)

    def _is_ours(self, pid: int) -> bool:
        return pid > 0 and (pid == self.process.pid or pid in pids_marked(self.mark))  # behind a prefix

    def status(self) -> dict[str, Any]:
        """The /status object."""
        return dict(self.control().json())

    def wait_status(self, true: Callable[[dict[str, Any]], Any], timeout: float = PATIENCE) -> dict[str, Any]:
        """The first /status for which something is true."""
        deadline = time.monotonic() + timeout
        found: dict[str, Any] | None = None
        while True:
            assert self.process.poll() is None, "ended"
            with contextlib.suppress(OSError):
                found = self.status()
                if true(found):
                    return found
            assert time.monotonic() < deadline, f"not within {timeout:g} s; /status is {found}"
            time.sleep(0.02)

    def ready(self) -> list[int]:
        """The pids of the ready workers, by slot."""
        rows = [row for row in self.status()["workers"] if row["state"] == "ready"]
        return [row["pid"] for row in sorted(rows, key=lambda row: row["slot"])]

    def wait_ready(
        self, count: int, timeout: float = PATIENCE, *, without: Collection[int] = ()
    ) -> list[int]:
        """The pids by slot, once exactly this many workers are ready, and there are no others.

        `without`: pids that have to be gone by then. All in one look: of two, a worker may die in between.
        """

        def settled(status: dict[str, Any]) -> bool:
            rows = status["workers"]
            ready = len(rows) == count and all(row["state"] == "ready" for row in rows)
            return ready and not any(row["pid"] in without for row in rows)

        rows = self.wait_status(settled, timeout)["workers"]
        return [row["pid"] for row in sorted(rows, key=lambda row: row["slot"])]

    # -- requests ------------------------------------------------------------------------------------------

    @property
    def urls(self) -> list[str]:
        """Where it listens, from its log, or from /status where that goes elsewhere; waits for it."""
        return list(eventually(self._urls, "an address"))

    def _urls(self) -> list[str]:
        found = re.search(r'listening at ([^"\n]+)["\n]', self.stderr)
        if found:
            return found[1].split(", ")
        with contextlib.suppress(OSError):
            return list(self.status()["listeners"])
        assert self.process.poll() is None, "ended before it listened"
        return []

    @property
    def port(self) -> int:
        return int(self.urls[0].rpartition(":")[2])

    def connect(self, index: int = 0, timeout: float = PATIENCE) -> socket.socket:
        """A raw connection to a listener (without TLS)."""
        url = self.urls[index]
        if url.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
            sock.connect(url.removeprefix("unix:"))
            return sock
        host, _, port = url.partition("://")[2].rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
        return socket.create_connection((host, int(port)), timeout)

    def get(self, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None,
            body: bytes | None = None, index: int = 0, timeout: float = PATIENCE) -> Reply:  # fmt: skip
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("test")
        connection.sock = self.connect(index, timeout)
        try:
            connection.request(method, path, body, {"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    # -- doing ---------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> Path:
        """Put a file into the folder."""
        return write_file(self.folder, name, text)

    def signal(self, number: int) -> None:
        """Signal the supervisor."""
        self.process.send_signal(number)

    def stop(self, timeout: float = PATIENCE) -> int:
        """TERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    def destroy(self) -> list[int]:
        """Kill everything; returns whom its own end has left running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        else:
            self.leftovers = self.leftovers or pids_marked(self.mark)
        for pid in pids_marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not pids_marked(self.mark), f"the end of {self.command}")
        return self.leftovers
