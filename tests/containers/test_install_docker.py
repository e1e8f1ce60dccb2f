"""`mooring install` in a user's Dockerfile: the declaration's layer, and the code's."""

from __future__ import annotations

import pytest

DOCKERFILE = """
FROM mooring:base
COPY requirements.txt /app/
RUN --mount=type=cache,target=/root/.cache mooring install
COPY main.py /app/
"""
APP = """
import itsdangerous


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s " + itsdangerous.__name__.encode()})
"""


@pytest.fixture(scope="module")
def layers(images):
    """The layers of two builds of the same declaration, with other code, and the second's name."""
    found = []
    for version in ("one", "two"):
        files = {"requirements.txt": "itsdangerous==2.2.0\n", "main.py": APP.replace("%s", version)}
        name = images.user(DOCKERFILE, files)
        found.append(images.inspect(name)["RootFS"]["Layers"])
    return (*found, name)


def test_what_was_declared_is_there_and_the_server_stands_apart(layers, start):
    container = start(layers[2])
    assert container.text() == "two itsdangerous"
    code, said = container.execute("mooring", "install", "--dry-run")
    assert code == 0
    assert "uv pip install" in said
    assert "has no mooring" not in container.logs()
    assert container.stop() == 0


def test_other_code_has_the_same_packages_layer(layers):
    one, two, _ = layers
    assert one[:-1] == two[:-1]
    assert one[-1] != two[-1]
