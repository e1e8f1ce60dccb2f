"""The integration harness: real `mooring` processes, in a folder and an environment of their own.

Use it by the fixture `mooring` (conftest.py), a Starter:

    def test_serves(mooring):
        app = mooring.run("main:app", files={"main.py": ASGI_APP}, workers=2)  # returns once it serves
        assert app.get("/").text == "hello"
        app.write("main.py", OTHER)             # files may change at any time
        app.signal(signal.SIGHUP)
        app.wait_log("rolled: generation 2")    # a text, or a compiled pattern; searched in stderr and stdout
        app.wait_status(lambda s: s["generation"] == 2)
        assert app.stop() == 0                  # TERM, wait_exit

    def test_refuses(mooring):
        app = mooring.start("run", "nope:app")  # any command; waits for nothing
        assert app.wait_exit() == 3
        assert "nope" in app.last_line

What you get: PORT=0 and a MOORING_RUNTIME_DIR of its own, no other variable but PATH, LANG, HOME (the
folder). Keyword arguments in capitals are environment variables; None removes one. `folder` and `runtime`
are removed afterwards; both are open to other users, for MOORING_USER. Several calls in one test share
`mooring.folder` and `mooring.runtime`.

The variable HARNESS_COMMAND replaces `python -m mooring`: an installed wheel, another Python, a mutant.
`mooring.command` does so for one test.

Waits are for announced states, PATIENCE seconds at most, and fail at once where the process has ended. A
failing test prints the logs of its processes. After a test everything is killed; what a process of ours has
left running after its own end fails the test. All children carry a marker in their environment, so setsid()
hides nobody.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness_apps import ASGI_APP, WSGI_APP
from harness_process import Mooring
from harness_tools import PATIENCE, Reply, eventually, free_port, pids_marked, read_all, write_file

__all__ = [
    "ASGI_APP",
    "PATIENCE",
    "WSGI_APP",
    "Mooring",
    "Reply",
    "Starter",
    "eventually",
    "free_port",
    "pids_marked",
    "read_all",
]

COMMAND = os.environ.get("HARNESS_COMMAND", f"{sys.executable} -m mooring").split()


class Starter:
    """The fixture `mooring`: starts processes that share `folder` and `runtime`."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="mooring-test-"))
        self.base.chmod(0o755)
        self.folder, self.runtime = self.base / "app", self.base / "run"
        self.folder.mkdir(mode=0o755)
        self.command = COMMAND
        self.started: list[Mooring] = []

    def start(self, *args: str, files: dict[str, str] | None = None, prefix: Sequence[str] = (),
              options: dict[str, Any] | None = None, **environ: Any) -> Mooring:  # fmt: skip
        """Start `mooring ARGS` and wait for nothing.

        `prefix` is a command before it (setpriv, unshare, ...); `options` go to Popen.
        """
        for name, text in (files or {}).items():
            write_file(self.folder, name, text)
        variables = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.folder), "PORT": "0",
            "MOORING_RUNTIME_DIR": str(self.runtime),
            "PYTHONDONTWRITEBYTECODE": "1",  # a .pyc hides a change of the same size within a second
            **environ,
        }  # fmt: skip
        clean = {name: str(value) for name, value in variables.items() if value is not None}
        started = Mooring(self, [*prefix, *self.command, *args], clean, **(options or {}))
        self.started.append(started)
        return started

    def run(
        self, *args: str, workers: int | None = None, files: dict[str, str] | None = None, **more: Any
    ) -> Mooring:
        """`mooring run ARGS`, and wait until all its workers serve. Without files: ASGI_APP as main.py."""
        if workers is not None:
            more["WEB_CONCURRENCY"] = workers
        if files is None and not any(self.folder.iterdir()):
            files = {"main.py": ASGI_APP}
        started = self.start("run", *args, files=files, **more)
        started.wait_status(_all_serve)
        return started

    def close(self) -> list[str]:
        """Kill everything, remove the folders; returns a line for each process that left others running."""
        found = [(each, each.destroy()) for each in self.started]
        shutil.rmtree(self.base, ignore_errors=True)
        return [f"{' '.join(each.command)} left running: {left}" for each, left in found if left]


def _all_serve(status: dict[str, Any]) -> bool:
    """Whether every planned worker is ready; gunicorn's are its arbiter's, which is one slot."""
    planned = status["plan"]["workers"]["value"]
    size = 1 if status["engine"] == "gunicorn" else planned
    ready = [row for row in status["workers"] if row["state"] == "ready"]
    serving = status["state"] == "serving" and status["size"] == size
    return serving and planned == len(ready) == len(status["workers"])
