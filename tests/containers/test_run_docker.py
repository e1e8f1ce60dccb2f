"""`mooring run`, installed by pip, as process 1 of a real container: its plan, and how it behaves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine import run

pytestmark = pytest.mark.docker

PATIENCE = 60

Starter = Callable[..., "Container"]


class Container:
    """A running container of the test image."""

    def __init__(self, docker: str, image: str, options: tuple[str, ...], command: tuple[str, ...]) -> None:
        self.docker, self.name = docker, f"mooring-test-{uuid.uuid4().hex[:12]}"
        started = run(docker, "run", "--detach", "--name", self.name, *options, image, *command)
        assert started.returncode == 0, started.stderr

    def execute(self, *command: str) -> tuple[int, str]:
        """A command inside: its exit code and stdout."""
        done = run(self.docker, "exec", self.name, *command)
        return done.returncode, done.stdout

    def logs(self) -> str:
        """Everything it has printed."""
        done = run(self.docker, "logs", self.name)
        return done.stdout + done.stderr

    def serving(self) -> dict[str, Any]:
        """The status once all workers are ready."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            code, text = self.execute("mooring", "status", "--json")
            status = json.loads(text) if code == 0 else {}
            ready = [row for row in status.get("workers", ()) if row["state"] == "ready"]
            if status.get("plan", {}).get("revision") == 2 and len(ready) == status["size"]:
                return dict(status)
            assert self.state()["Running"], self.logs()
        raise AssertionError(self.logs())

    def state(self) -> dict[str, Any]:
        """Docker's own view of it."""
        shown = run(self.docker, "inspect", "--format", "{{json .State}}", self.name)
        return dict(json.loads(shown.stdout))

    def stop(self) -> float:
        """`docker stop`: the seconds that it took."""
        start = time.monotonic()
        run(self.docker, "stop", self.name)
        return time.monotonic() - start

    def remove(self) -> None:
        """Away with it."""
        run(self.docker, "rm", "--force", self.name)


@pytest.fixture
def start(docker: str, image: str) -> Iterator[Starter]:
    """Start containers; all are removed afterwards."""
    made: list[Container] = []

    def starter(*options: str, command: tuple[str, ...] = ()) -> Container:
        made.append(Container(docker, image, options, command))
        return made[-1]

    yield starter
    for container in made:
        container.remove()


@pytest.mark.parametrize(
    ("options", "workers", "reason"),
    [
        (["--cpus", "0.5"], 1, "0.5 CPU cores (cpu_quota"),
        (["--cpus", "1.5"], 1, "1.5 CPU cores (cpu_quota"),
        (["--cpuset-cpus", "0"], 1, "1 CPU cores (cpuset"),
        (["--cpus", "1", "--env", "WORKERS_PER_CORE=3"], 3, "1 CPU cores (cpu_quota"),
    ],
)
def test_the_plan_follows_the_containers_cpu(
    start: Starter, options: list[str], workers: int, reason: str
) -> None:
    status = start(*options).serving()
    assert status["plan"]["workers"]["value"] == workers
    assert reason in status["plan"]["workers"]["reason"]
    assert len(status["workers"]) == workers


def test_only_as_many_workers_as_fit_the_memory(start: Starter) -> None:
    container = start("--memory", "160m", "--env", "WORKERS_PER_CORE=64", "--env", "MOORING_CPU_COUNT=1")
    status = container.serving()
    assert 1 <= status["size"] < 16
    assert "capped by memory" in status["plan"]["workers"]["reason"]
    assert not container.state()["OOMKilled"]


def test_docker_stop_ends_it_at_once_with_0(start: Starter) -> None:
    container = start()
    container.serving()
    assert container.stop() < 5
    assert container.state()["ExitCode"] == 0
    assert "stopped (asked to stop)" in container.logs()


def test_process_1_reaps_orphans(start: Starter) -> None:
    container = start()
    container.serving()
    assert container.execute("sh", "-c", "sh -c 'sleep 0.2 & echo $!' >/tmp/pid; true")[0] == 0
    script = "import os,sys; sys.exit(os.path.exists('/proc/' + open('/tmp/pid').read().strip()))"
    deadline = time.monotonic() + PATIENCE
    while container.execute("python", "-c", script)[0] != 0:
        assert time.monotonic() < deadline, "the orphan is still there"


@pytest.mark.parametrize(
    "options",
    [
        ["--read-only"],
        ["--cap-drop", "ALL"],
        ["--user", "12345:0"],
        ["--init"],
        ["--read-only", "--user", "12345:0"],
    ],
    ids=" ".join,
)
def test_it_runs_where_little_is_allowed(start: Starter, options: list[str]) -> None:
    container = start(*options)
    assert container.serving()["state"] == "serving"
    assert container.execute("mooring", "health")[0] == 0
    container.stop()
    assert container.state()["ExitCode"] == 0


def test_a_bad_start_ends_the_container_with_the_documented_code(start: Starter) -> None:
    container = start("--env", "WEB_CONCURRENCY=many")
    deadline = time.monotonic() + PATIENCE
    while container.state()["Running"]:
        assert time.monotonic() < deadline
    assert container.state()["ExitCode"] == 2
    assert container.logs().splitlines()[-1].startswith("mooring: bad settings: WEB_CONCURRENCY='many'")


LARGE = "b = bytearray(b'x') * (50 << 20); from main import app"


@pytest.mark.parametrize(
    ("memory", "how"),
    [
        ("512m", "rolls all at once: 2 x"),
        ("290m", "rolls one by one: 2 x"),
        ("200m", "rolls one by one, each drained before its replacement starts: not one more"),
    ],
)
def test_a_roll_keeps_below_the_memory_limit(start: Starter, memory: str, how: str) -> None:
    command = ("sh", "-c", f'echo "{LARGE}" >large.py && exec mooring run large:app')
    container = start("--memory", memory, "--env", "WEB_CONCURRENCY=2", command=command)
    container.serving()
    code, text = container.execute("mooring", "reload")
    assert (code, text) == (0, "generation 2 serves\n"), container.logs()
    assert how in container.logs()
    assert container.serving()["last_roll"]["surge"]["why"].count("MiB") >= 2
    assert "out of memory" not in container.logs()
    assert not container.state()["OOMKilled"]
