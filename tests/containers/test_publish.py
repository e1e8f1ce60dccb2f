"""`make publish` to a real registry on this machine: pulled back by each of its tags, and served.

The registry is Debian's docker-registry; .ci/run installs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from container import Starter
from engine import ROOT, run
from images import FOLDER, Images

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

CONFIG = """
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}
http:
  addr: 127.0.0.1:{port}
"""
VERSION = str(re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0])


def catalog(address: str) -> list[str]:
    """The names of what it holds."""
    with urllib.request.urlopen(f"http://{address}/v2/_catalog", timeout=30) as answer:
        return list(json.load(answer)["repositories"])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """An empty registry: its address. Docker needs no TLS at 127.0.0.1."""
    program = shutil.which("docker-registry")
    if program is None:
        assert "CI" not in os.environ, "docker-registry is not installed"
        pytest.skip("needs docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "registry.yml"
    file.write_text(CONFIG.format(folder=tmp_path / "registry", port=port))
    with (tmp_path / "registry.log").open("w") as log:
        server = subprocess.Popen([program, "serve", file], stdout=log, stderr=log)
    try:
        while True:
            assert server.poll() is None, (tmp_path / "registry.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                continue
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def test_what_is_published_is_pulled_and_serves(
    images: Images, docker: str, registry: str, start: Starter
) -> None:
    targets = ("inboard-base", "flask-nonroot")
    for target in targets:
        images.target(target)
    publish = ("make", "publish", f"REGISTRY={registry}", f"IMAGES={' '.join(targets)}", f"DOCKER={docker}")
    done = run(*publish, f"IMAGE_NAME=mooring-test-{FOLDER}", "--directory", ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert catalog(registry) == ["mooring"]
    published = [
        f"{target}{rest}" for target in targets for rest in ("", "-python3.13", f"-python3.13-{VERSION}")
    ]
    for tag in published:  # what is pulled below comes from the registry
        assert run(docker, "image", "rm", f"{registry}/mooring:{tag}").returncode == 0, tag
    try:
        for tag in published:
            pulled = run(docker, "pull", f"{registry}/mooring:{tag}")
            assert pulled.returncode == 0, pulled.stderr
            local = images.inspect(images.target(tag.partition("-python")[0]))
            assert images.inspect(f"{registry}/mooring:{tag}")["Id"] == local["Id"]
        assert "From mooring, uvicorn" in start(f"{registry}/mooring:inboard-base").text()
        assert "From mooring, " in start(f"{registry}/mooring:flask-nonroot", port=8080).text()
    finally:
        run(docker, "image", "rm", "--force", *(f"{registry}/mooring:{tag}" for tag in published))


def test_without_a_registry_it_says_what_is_missing(docker: str) -> None:
    done = run("make", "publish", f"DOCKER={docker}", "--directory", ROOT)
    assert done.returncode == 2
    assert "REGISTRY=... is missing: where to push to" in done.stderr


def test_the_scan_looks_at_the_debian_packages_of_the_image(
    images: Images, docker: str, tmp_path: Path
) -> None:
    """With no Python package: those need services that are not everywhere. What is found may vary."""
    empty = tmp_path / "lock.txt"
    empty.touch()
    command = (sys.executable, ROOT / "scripts/scan.py", "--docker", docker)
    done = run(*command, "--image", images.target("base"), "--lock", empty)
    counts = re.search(r"scan: (\d+) packages looked up", done.stdout)
    assert counts, done.stderr
    unseen = re.search(r"its apt has no security archive, so (\d+) packages are unseen", done.stdout)
    assert int((unseen or counts)[1]) > 50, done.stdout
    assert done.returncode in ((1, 3) if unseen else (0, 1)), done.stdout
