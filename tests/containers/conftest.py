"""What the container tests share: an engine that answers, the images, containers that are always removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from container import Container, Starter
from engine import ROOT, TOOLS, run
from images import Images

NEEDS = "container tests need a running Docker engine, and none answers"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building is part of a test's time."""
    for item in items:
        if "containers" in item.path.parts:
            item.add_marker(pytest.mark.timeout(1200), append=False)


@pytest.fixture(scope="session")
def docker() -> str:
    """The client of an engine that answers."""
    if (TOOLS / "docker-engine").exists():
        started = run(
            TOOLS / "base-images", "3.11", "3.12", "3.13", "3.13-full", timeout=1100
        )  # which starts the engine
        assert started.returncode == 0, started.stderr
        return "/usr/bin/docker"
    client = shutil.which("docker") or ""
    if not client or run(client, "info").returncode:
        pytest.skip(NEEDS)
    return client


@pytest.fixture(scope="session")
def cores(docker: str) -> int:
    """The CPUs of a container without limits."""
    return int(run(docker, "info", "--format", "{{.NCPU}}").stdout)


@pytest.fixture(scope="session")
def images(docker: str) -> Iterator[Images]:
    """The images, built when a test asks for them."""
    made = Images(docker)
    yield made
    made.remove_users()


@pytest.fixture(scope="session")
def hello(images: Images) -> str:
    """A user's image with an ASGI application that needs no framework, on the base image."""
    example = (ROOT / "examples/hello/main.py").read_text()
    return images.user("FROM mooring:base\nCOPY main.py /app/\n", {"main.py": example})


@pytest.fixture
def start(docker: str) -> Iterator[Starter]:
    """Start containers: `start(image, *options, command=(), port=80)`; all are removed afterwards."""
    made: list[Container] = []

    def starter(image: str, *options: str, command: tuple[str, ...] = (), port: int | None = 80) -> Container:
        made.append(Container(docker, image, *options, command=command, port=port))
        return made[-1]

    yield starter
    for container in made:
        container.remove()
