"""The Dockerfiles of the older images' documentation, with only the image's name changed, build and serve."""

from __future__ import annotations

import re

import pytest
from container import Starter
from images import Images
from seeds.applications import files
from seeds.dockerfiles import DOCKERFILES, OURS
from seeds.row import Dockerfile, Subject
from seedtools import locked

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def renamed(text: str) -> str:
    """A Dockerfile with our image's name in place of theirs."""
    return re.sub(r"^FROM (\S+)", lambda found: f"FROM {OURS[found[1]]}", text)


@pytest.mark.parametrize("row", DOCKERFILES, ids=lambda row: f"{row.seeds} {row.heading}")
def test_a_documented_dockerfile(images: Images, start: Starter, row: Dockerfile) -> None:
    text, context = renamed(row.text), files(row.seeds, row.files)
    if "poetry" in text:
        context["poetry.lock"] = locked(images, "inboard-fastapi", context["pyproject.toml"])
        text = text.replace("\nRUN", "\nARG REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt\nRUN")
    if "COPY" not in text:
        text += "COPY package /app/\n"
    container = start(images.user(text, context))
    for look in row.looks:
        look(Subject(row.seeds, container, ""))
    assert container.stop() == 0, container.logs()
