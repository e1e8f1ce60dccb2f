"""For the tests of live reload: start `mooring dev`, count its reloads, wait for the code that answers."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from harness import ASGI_APP, PATIENCE, Mooring, Starter, eventually
from processes import log_writers

WATCHING = "live reload watches"


def code(version: str | int, extra: str = "") -> str:
    """The application that answers /version with this one."""
    return ASGI_APP.replace('VERSION = "1"', f'VERSION = "{version}"') + extra


def dev(mooring: Starter, *args: str, files: dict[str, str] | None = None, **more: object) -> Mooring:
    """`mooring dev`, once it serves and watches."""
    if files is None:
        files = {"main.py": code(1)}
    app = mooring.start("dev", *args, files=files, **{"RELOAD_DELAY": 0.1, **more})
    app.wait_log(WATCHING)
    app.wait_status(lambda s: s["state"] == "serving")
    return app


def reloads(app: Mooring) -> list[str]:
    """What each reload so far was for, relative to the application's folder."""
    found = [line.partition("Worker reloading: ")[2] for line in app.stderr.splitlines()]
    return [each.removeprefix(f"{app.folder}/").removesuffix(" modified") for each in found if each]


def marked_reload(app: Mooring, version: str | int) -> list[str]:
    """Save the application as this version, wait until it serves, and return what was reloaded before that.

    So a test can tell what did not reload: the save comes after it, and the watcher reports in order.
    """
    before = reloads(app).count("main.py")
    app.write("main.py", code(version))
    app.wait_log(re.compile(r"Worker reloading: .*/main\.py modified$"), count=before + 1)
    wait_version(app, version)
    return reloads(app)[:-1]


def wait_version(app: Mooring, version: str | int, timeout: float = PATIENCE) -> None:
    """Ask until this one answers; requests that come between two workers wait in the backlog."""

    def answers() -> bool:
        with contextlib.suppress(ConnectionError):  # of a worker that was killed when its grace was over
            return app.get("/version").text == str(version)
        return False

    eventually(answers, f"version {version}", timeout)


def watcher(app: Mooring, but: Collection[int] = ()) -> int:
    """The pid of the watcher: the supervisor's child that is no worker, no log writer, and none of `but`."""

    def find() -> int:
        children = Path(f"/proc/{app.pid}/task/{app.pid}/children").read_text().split()
        workers = {row["pid"] for row in app.status()["workers"]}
        others = {*workers, *log_writers(app.pid), *but}
        return next((int(pid) for pid in children if int(pid) not in others), 0)

    return int(eventually(find, "the watcher"))


def replace_file(path: Path, text: str) -> None:
    """As many editors save: a temporary file beside it, renamed over it."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(text)
    os.replace(beside, path)
