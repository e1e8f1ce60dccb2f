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


def test_a_user_who_may_not_write_is_told_what_to_do(images, start):
    """On an image without root; as root, and then back, it is installed for every user."""
    text = DOCKERFILE.replace("mooring:base", "mooring:base-nonroot")
    files = {"requirements.txt": "itsdangerous==2.2.0\n", "main.py": APP.replace("%s", "three")}
    assert "cannot be written by user 65532: in a Dockerfile, write USER root" in images.refuses(text, files)
    text = text.replace("COPY req", "USER root\nCOPY req").replace("COPY main", "USER 65532:65532\nCOPY main")
    container = start(images.user(text, files), "--user", "1000750000:0", "--read-only", port=8080)
    assert container.text() == "three itsdangerous"
    assert container.execute("ls", "-A", "/tmp")[1].split() == [], "what the tools leave"
