"""Development in a container: the code is a volume, a save is served, a debugger attaches from outside."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from container import Starter
from engine import ROOT
from images import Images, write

sys.path.insert(0, str(ROOT / "tests/integration"))
from dap import Debugger

pytestmark = pytest.mark.docker

CODE = """async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"version 1"})
"""


@pytest.mark.parametrize(
    ("target", "options", "command"),
    [
        ("base", (), ("/start-reload.sh",)),
        ("base", ("--env", "MOORING_RELOAD_POLLING=on"), ("/start-reload.sh",)),
        ("inboard-fastapi", ("--env", "WITH_RELOAD=true"), ()),
        ("hypercorn", (), ("/start-reload.sh",)),
    ],
    ids=["inotify", "polling", "inboard", "hypercorn"],
)
def test_a_save_in_the_volume_is_served(
    start: Starter,
    images: Images,
    tmp_path: Path,
    target: str,
    options: tuple[str, ...],
    command: tuple[str, ...],
) -> None:
    write(tmp_path, {"main.py": CODE})
    container = start(images.target(target), "--volume", f"{tmp_path}:/app", *options, command=command)
    assert container.text() == "version 1"
    write(tmp_path, {"main.py": CODE.replace("version 1", "version 2")})
    container.until(lambda: container.text() == "version 2", "the new code")
    assert "Worker reloading: /app/main.py modified" in container.logs()
    assert container.stop() == 0


def test_a_debugger_attaches_by_one_variable(start: Starter, images: Images, tmp_path: Path) -> None:
    write(tmp_path, {"main.py": CODE})
    options = (
        "--volume",
        f"{tmp_path}:/app:ro",
        "--publish",
        "127.0.0.1::5678",
        "--env",
        "MOORING_DEBUGPY=0.0.0.0:5678",
    )
    container = start(images.target("fastapi"), *options)
    assert container.get().status_code == 200
    with Debugger(container.published(5678)) as debugger:
        assert debugger.attach()["supportsConfigurationDoneRequest"]
        debugger.go()
        assert container.get().status_code == 200
    assert container.stop() == 0
