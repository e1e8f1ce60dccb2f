"""Real quotas by a real Docker engine: what mooring reads inside the container is what the engine was told.

Uses ../shared/tools/docker-engine and its stand-in image where they are, any engine that answers elsewhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from engine import ROOT, run

pytestmark = pytest.mark.docker

IMAGE = "python:3.13-slim-bookworm"
MIB = 1 << 20
SCRIPT = """
import json, os
from mooring.resources import cpu_throttled_seconds, memory_current, oom_kills, read

found = read(environ=os.environ)
usage = {"throttled": cpu_throttled_seconds(), "memory": memory_current(), "oom_kills": oom_kills()}
print(json.dumps({**found.as_json(), "warnings": found.warnings, "usage": usage, "host": os.cpu_count()}))
"""


def read_inside(docker: str, *options: str) -> dict[str, Any]:
    container = run(
        docker,
        "run",
        "--rm",
        *("--volume", f"{ROOT / 'src'}:/src:ro", "--env", "PYTHONPATH=/src"),
        *("--env", "PYTHONDONTWRITEBYTECODE=1"),
        *options,
        IMAGE,
        *("python", "-c", SCRIPT),
    )
    assert container.returncode == 0, container.stderr
    found: dict[str, Any] = json.loads(container.stdout)
    assert found["warnings"] == []
    return found


@pytest.mark.parametrize("namespace", ["host", "private"])
@pytest.mark.parametrize(("cpus", "cores"), [("0.5", 0.5), ("1.5", 1.5)])
def test_cpu_quota(docker: str, cpus: str, cores: float, namespace: str) -> None:
    found = read_inside(docker, "--cpus", cpus, "--cgroupns", namespace)
    assert found["cpu_quota"]["value"] == cores
    assert found["cpu_quota"]["source"].startswith("/sys/fs/cgroup/")
    assert found["cpus"]["value"] == min(cores, found["host"])
    assert found["memory_limit"]["value"] is None


def test_cpuset(docker: str) -> None:
    found = read_inside(docker, "--cpuset-cpus", "0")
    assert found["cpuset"]["value"] == 1
    assert found["affinity"]["value"] == 1
    assert found["cpus"]["value"] == 1
    if found["host"] > 1:
        assert found["cpus"]["source"].startswith("cpuset: /sys/fs/cgroup/")


def test_memory_limit(docker: str) -> None:
    found = read_inside(docker, "--memory", "256m")
    assert found["memory_limit"]["value"] == 256 * MIB
    assert found["cpu_quota"]["value"] is None
    assert 0 < found["usage"]["memory"] < 256 * MIB
    assert found["usage"]["oom_kills"] == 0


def test_no_limits(docker: str) -> None:
    found = read_inside(docker)
    assert found["cpu_quota"]["value"] is None
    assert found["cpu_quota"]["source"].startswith("no limit in /sys/fs/cgroup/")
    assert found["memory_limit"]["value"] is None
    assert found["cpus"]["value"] == found["host"]
    assert found["kubernetes"]["value"] is False


def test_all_together(docker: str) -> None:
    found = read_inside(docker, "--cpus", "0.75", "--cpuset-cpus", "0", "--memory", "300m")
    assert found["cpu_quota"]["value"] == 0.75
    assert found["cpuset"]["value"] == 1
    assert found["memory_limit"]["value"] == 300 * MIB
    assert found["cpus"]["value"] == 0.75
    assert found["cpus"]["source"].startswith("cpu_quota: ")


def test_throttling_is_measured(docker: str) -> None:
    """A busy loop against a tenth of a core is held back nearly all the time."""
    busy = "import time; end = time.monotonic() + 1\nwhile time.monotonic() < end: pass\n" + SCRIPT
    container = run(
        docker, "run", "--rm", "--cpus", "0.1", "--volume", f"{ROOT / 'src'}:/src:ro",
        "--env", "PYTHONPATH=/src", IMAGE, "python", "-c", busy,
    )  # fmt: skip
    assert container.returncode == 0, container.stderr
    assert json.loads(container.stdout)["usage"]["throttled"] > 0.3


def test_a_limit_on_the_parent_is_known_inside(docker: str) -> None:
    """Version 1 tells it in memory.stat; version 2 only with the host's cgroup namespace and mount."""
    info = run(docker, "info", "--format", "{{.CgroupVersion}} {{.CgroupDriver}}").stdout.split()
    parent = Path("/sys/fs/cgroup/memory/docker/mooring-test")
    if info != ["1", "cgroupfs"] or not os.access(parent.parent, os.W_OK):
        pytest.skip("needs the right to make a cgroup v1")
    parent.mkdir(exist_ok=True)
    try:
        (parent / "memory.use_hierarchy").write_text("1")
        (parent / "memory.limit_in_bytes").write_text(str(200 * MIB))
        found = read_inside(docker, "--cgroup-parent", "/docker/mooring-test")
        host = read_inside(
            docker, "--cgroup-parent", "/docker/mooring-test", "--volume", "/sys/fs/cgroup:/host:ro"
        )
    finally:
        for folder in Path("/sys/fs/cgroup").glob("*/docker/mooring-test"):
            folder.rmdir()
    assert found["memory_limit"] == {"value": 200 * MIB, "source": "/sys/fs/cgroup/memory/memory.stat"}
    assert host["memory_limit"]["value"] == 200 * MIB
