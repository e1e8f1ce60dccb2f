"""What the container tests share: a Docker engine that answers, and an image with mooring installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from engine import ROOT, TOOLS, run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test builds the image, and some wait for minutes: the common limit is not for them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def docker() -> str:
    """The client of an engine that answers and has the image."""
    if (TOOLS / "docker-engine").exists():
        client = "/usr/bin/docker"
        started = run(TOOLS / "docker-engine")
        assert started.returncode == 0, started.stderr
        built = run(TOOLS / "base-images", "3.13")
        assert built.returncode == 0, built.stderr
        return client
    client = shutil.which("docker") or ""
    if not client or run(client, "info").returncode:
        pytest.skip("no Docker engine answers")
    return client


@pytest.fixture(scope="session")
def image(docker: str) -> str:
    """An image with mooring and all engines, installed from this checkout by `pip install .[all]`."""
    name = "mooring-test:latest"
    file = ROOT / "tests/containers/Dockerfile"
    built = run(docker, "build", "--network", "host", "--tag", name, "--file", file, ROOT)
    assert built.returncode == 0, built.stderr
    return name
