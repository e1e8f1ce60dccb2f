"""A leaking application in a real container of 256 MiB: recycled in time, nobody loses anything."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from container import Container, Starter
from engine import ROOT

sys.path.insert(0, str(ROOT / "tests/integration"))
from traffic import APP, Traffic

pytestmark = pytest.mark.docker

# Each slow request, some twenty a second, keeps 256 KiB: over the limit within a quarter of a minute.
LEAK = "KEPT = []\n\ndef leak():\n    KEPT.append(b'x' * (256 << 10))\n"
LEAKING = (LEAK + APP).replace('    if path == "/slow":\n', '    if path == "/slow":\n        leak()\n')
RECYCLES = 4


def recycled(container: Container) -> int:
    """How many workers were recycled so far."""
    return container.logs().count("of memory, more than")


def test_a_leak_is_recycled_before_the_kernels_limit(start: Starter, hello: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(LEAKING)
    tmp_path.chmod(0o755)
    container = start(
        hello,
        *("--memory", "256m", "--memory-swap", "256m", "--network", "host"),
        *("--volume", f"{tmp_path}:/leak:ro", "--workdir", "/leak"),
        *("--env", "WEB_CONCURRENCY=2", "--env", "MOORING_MAX_WORKER_MEMORY=60M", "--env", "ACCESS_LOG="),
        command=("mooring", "run", "main:app", "--port", "0"),
        port=None,
    )
    status = container.serving()
    port = int(status["listeners"][0].rpartition(":")[2])
    deadline = time.monotonic() + 600  # on a busy machine
    with Traffic(port) as traffic:
        while recycled(container) < RECYCLES:
            assert time.monotonic() < deadline, container.logs()
            assert container.state()["Running"], container.logs()
            assert "killed" not in container.logs()
            time.sleep(1)  # each look starts a client
    print(f"{recycled(container)} recycles, {traffic.total} requests, failed: {traffic.failed}")
    assert traffic.failed == {}, traffic.found["first"]
    assert "killed" not in container.logs()
    assert not container.state()["OOMKilled"]
    assert container.stop() == 0
