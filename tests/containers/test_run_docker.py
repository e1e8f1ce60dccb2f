"""mooring as process 1 of a real container: its plan, where little is allowed, how it ends."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from container import Starter
from engine import ROOT, run
from images import write

sys.path.insert(0, str(ROOT / "tests/integration"))
from traffic import APP, Traffic

pytestmark = pytest.mark.docker


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
    start: Starter, hello: str, options: list[str], workers: int, reason: str
) -> None:
    status = start(hello, *options).serving()
    assert status["plan"]["workers"]["value"] == workers
    assert reason in status["plan"]["workers"]["reason"]
    assert len(status["workers"]) == workers


def test_only_as_many_workers_as_fit_the_memory(start: Starter, hello: str) -> None:
    container = start(
        hello, "--memory", "160m", "--env", "WORKERS_PER_CORE=64", "--env", "MOORING_CPU_COUNT=1"
    )
    status = container.serving()
    assert 1 <= status["size"] < 16
    assert "capped by memory" in status["plan"]["workers"]["reason"]
    assert not container.state()["OOMKilled"]


def test_docker_stop_ends_it_at_once_with_0(start: Starter, hello: str) -> None:
    container = start(hello)
    container.serving()
    begin = time.monotonic()
    assert container.stop() == 0
    assert time.monotonic() - begin < 8  # the image's grace period; an idle one takes a tenth of a second
    assert "stopped (asked to stop)" in container.logs()
    container.again()
    assert container.serving()["state"] == "serving"


STARTS = [
    ("base", ()),
    ("base", ("mooring", "run")),
    ("base", ("/start-reload.sh",)),
    ("meinheld-flask", ()),
    ("inboard-base", ()),
]


@pytest.mark.parametrize(("image", "command"), STARTS)
def test_a_term_in_the_first_moments_ends_it_with_0(
    images, docker: str, start: Starter, image: str, command: tuple[str, ...]
) -> None:
    """Process 1 would lose it: the first is sent as soon as Docker sends any, which is before Python runs."""
    tag = images.target(image)
    for moment in (0.0, 0.1, 0.3, 0.6, 1.0):
        container = start(tag, command=command, port=None)
        time.sleep(moment)
        run(docker, "kill", "--signal", "TERM", container.name)
        deadline = time.monotonic() + 20  # on a busy machine; where it is lost, it serves for ever
        while container.state()["Running"]:
            assert time.monotonic() < deadline, f"lost after {moment:g} s:\n{container.logs()}"
            time.sleep(0.05)
        assert container.state()["ExitCode"] == 0


def test_what_is_no_mooring_has_no_signal_blocked(images, start: Starter) -> None:
    command = ("sh", "-c", "grep SigBlk /proc/self/status")
    for image in ("base", "meinheld-flask"):
        container = start(images.target(image), command=command, port=None)
        assert container.ended() == 0
        assert container.output()[0].split() == ["SigBlk:", "0" * 16]


def test_docker_stop_under_load_loses_nothing(start: Starter, hello: str, tmp_path: Path) -> None:
    """Clients that go away once readiness is off, as behind a balancer: the drain delay is for them."""
    write(tmp_path, {"main.py": APP})
    settings = {
        "PORT": "0",
        "HOST": "127.0.0.1",
        "WEB_CONCURRENCY": "2",
        "ACCESS_LOG": "",
        "MOORING_DRAIN_DELAY": "10",
    }
    environ = [f"--env={name}={value}" for name, value in settings.items()]
    container = start(hello, "--network", "host", "--volume", f"{tmp_path}:/app:ro", *environ, port=None)
    port = int(container.serving()["listeners"][0].rpartition(":")[2])
    with Traffic(port) as traffic, ThreadPoolExecutor(1) as aside:
        ending = aside.submit(container.stop)
        container.until(lambda: container.execute("mooring", "health")[0] != 0, "readiness is off")
        traffic.stop()
        assert ending.result() == 0
    assert traffic.failed == {}, traffic.found
    assert traffic.total > 100


def test_process_1_reaps_orphans(start: Starter, hello: str) -> None:
    container = start(hello)
    container.serving()
    assert container.execute("sh", "-c", "sh -c 'sleep 0.2 & echo $!' >/tmp/pid; true")[0] == 0
    script = "import os,sys; sys.exit(os.path.exists('/proc/' + open('/tmp/pid').read().strip()))"
    container.until(lambda: container.execute("python", "-c", script)[0] == 0, "the orphan is gone")


RESTRICTED = [
    ["--read-only"],
    ["--cap-drop", "ALL"],
    ["--user", "12345:0"],
    ["--user", "1000750000:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"],
    ["--init"],
    ["--tty"],
    ["--ipc", "none"],
    ["--shm-size", "64k"],
    ["--pids-limit", "64"],
]


@pytest.mark.parametrize("options", RESTRICTED, ids=" ".join)
def test_it_runs_where_little_is_allowed(start: Starter, hello: str, options: list[str]) -> None:
    container = start(hello, *options)
    assert container.serving()["state"] == "serving"
    assert "Hello from mooring" in container.text()
    assert container.execute("mooring", "health")[0] == 0
    assert container.stop() == 0


@pytest.mark.parametrize(
    ("image", "app"),
    [("hypercorn", "hypercorn"), ("meinheld-flask", "granian"), ("inboard-base", "gunicorn")],
)
def test_every_engine_runs_where_little_is_allowed(images, start: Starter, image: str, app: str) -> None:
    """Read-only, without rights, without /dev/shm, as any user: gunicorn's heartbeat files included."""
    arguments = ["--env", "GUNICORN_CMD_ARGS=--max-requests 0"] if app == "gunicorn" else []
    options = ["--read-only", "--cap-drop", "ALL", "--ipc", "none", "--user", "12345:0", "--env", "PORT=8080"]
    tag = images.target(image)
    container = start(tag, *options, *arguments, port=8080)
    assert f"From mooring, {app} and Python" in container.text()
    assert container.stop() == 0


def test_docker_itself_sees_that_it_is_healthy(images, start: Starter) -> None:
    quick = 'FROM mooring:base\nHEALTHCHECK --interval=1s --timeout=30s CMD ["mooring", "health"]\n'
    container = start(images.user(quick))
    container.until(lambda: container.state()["Health"]["Status"] == "healthy", "healthy")


def test_a_bad_start_ends_the_container_with_the_documented_code(start: Starter, hello: str) -> None:
    container = start(hello, "--env", "WEB_CONCURRENCY=many")
    assert container.ended() == 2
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
def test_a_roll_keeps_below_the_memory_limit(start: Starter, hello: str, memory: str, how: str) -> None:
    command = ("sh", "-c", f'echo "{LARGE}" >large.py && exec mooring run large:app')
    container = start(hello, "--memory", memory, "--env", "WEB_CONCURRENCY=2", command=command)
    container.serving()
    code, text = container.execute("mooring", "reload")
    assert (code, text) == (0, "generation 2 serves\n"), container.logs()
    assert how in container.logs()
    assert container.serving()["last_roll"]["surge"]["why"].count("MiB") >= 2
    assert "out of memory" not in container.logs()
    assert not container.state()["OOMKilled"]
