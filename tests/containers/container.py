"""A running container, as the tests look at it: from outside, and by `docker exec`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
from engine import run

PATIENCE = 90
"""Seconds that a state is waited for: it is there much sooner, unless the machine is busy."""

Starter = Callable[..., "Container"]


class Container:
    """`docker run --detach`, with the image's port published on 127.0.0.1 only.

    options: of `docker run`; command: after the image; port: the container's (None publishes nothing).
    """

    def __init__(
        self, docker: str, image: str, *options: str, command: tuple[str, ...] = (), port: int | None = 80
    ) -> None:
        self.docker, self.name, self.port = docker, f"mooring-test-{uuid.uuid4().hex[:12]}", port
        publish = () if port is None else ("--publish", f"127.0.0.1::{port}")
        started = run(docker, "run", "--detach", "--name", self.name, *publish, *options, image, *command)
        assert started.returncode == 0, started.stderr

    # What it says

    def execute(self, *command: str, user: str = "") -> tuple[int, str]:
        """A command inside: its exit code and stdout."""
        done = run(self.docker, "exec", *(("--user", user) if user else ()), self.name, *command)
        return done.returncode, done.stdout

    def output(self) -> tuple[str, str]:
        """Everything it has printed: stdout, stderr."""
        done = run(self.docker, "logs", self.name)
        return done.stdout, done.stderr

    def logs(self) -> str:
        """Both, one after the other."""
        return "".join(self.output())

    def state(self) -> dict[str, Any]:
        """Docker's own view of it."""
        shown = run(self.docker, "inspect", "--format", "{{json .State}}", self.name)
        return dict(json.loads(shown.stdout))

    @property
    def url(self) -> str:
        """Where its port is, on this machine. Another one after each start."""
        assert self.port is not None
        return f"http://127.0.0.1:{self.published(self.port)}"

    def published(self, port: int) -> int:
        """Where one of its published ports is on 127.0.0.1."""
        shown = run(self.docker, "port", self.name, f"{port}/tcp").stdout.splitlines()
        assert shown, self.logs()
        return int(shown[0].rpartition(":")[2])

    # States that are waited for

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """The first truthy answer; fails where the container ends, or after PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        while not (found := look()):
            running = self.state()["Running"]
            if not running and (found := look()):
                break
            assert running, f"ended before {what}:\n{self.logs()}"
            assert time.monotonic() < deadline, f"not seen: {what}\n{self.logs()}"
            time.sleep(0.1)
        return found

    def wait_log(self, text: str) -> str:
        """The first line with this text."""
        return str(self.until(lambda: self._line(text), repr(text)))

    def _line(self, text: str) -> str:
        return next((line for line in self.logs().splitlines() if text in line), "")

    def get(self, path: str = "/", **more: Any) -> httpx.Response:
        """An answer to GET; connections that are refused or cut are tried again until it serves."""
        found: httpx.Response = self.until(lambda: self._try(path, more), f"GET {path}")
        return found

    def _try(self, path: str, more: dict[str, Any]) -> httpx.Response | None:
        try:
            return httpx.get(self.url + path, timeout=30, **more)
        except httpx.TransportError:
            return None

    def text(self, path: str = "/") -> str:
        """The body of a GET that answers 200."""
        found = self.get(path)
        assert found.status_code == 200, found.text
        return found.text

    def status(self) -> dict[str, Any]:
        """`mooring status --json`; empty while there is none."""
        code, text = self.execute("mooring", "status", "--json")
        return dict(json.loads(text)) if code == 0 else {}

    def serving(self) -> dict[str, Any]:
        """The status once all workers are ready."""

        def look() -> dict[str, Any]:
            status = self.status()
            ready = [row for row in status.get("workers", ()) if row["state"] == "ready"]
            planned = status.get("plan", {}).get("revision", 0) >= 2  # worker 0 has reported
            return status if planned and len(ready) == status["size"] else {}

        return dict(self.until(look, "all workers ready"))

    def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        deadline = time.monotonic() + PATIENCE
        while self.state()["Running"]:
            assert time.monotonic() < deadline, f"still running:\n{self.logs()}"
            time.sleep(0.1)
        return int(self.state()["ExitCode"])

    # Its end

    def stop(self, seconds: int = 130) -> int:
        """`docker stop`: the exit code; 137 where Docker had to kill it."""
        run(self.docker, "stop", "--time", str(seconds), self.name)
        return int(self.state()["ExitCode"])

    def again(self) -> None:
        """`docker start`, after a stop."""
        started = run(self.docker, "start", self.name)
        assert started.returncode == 0, started.stderr

    def remove(self) -> None:
        """Away with it; what it has printed is shown where its test fails."""
        print(f"--- {self.name}\n{self.logs()}")
        run(self.docker, "rm", "--force", "--volumes", self.name)
