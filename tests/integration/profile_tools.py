"""What the profiles' tests share: an image's profile on loopback, its configuration file, an application."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import Mooring, Starter

from mooring import resources

CONF = Path(__file__).parents[2] / "images" / "conf"
CONFS = {
    "hypercorn": CONF / "hypercorn_conf.py",
    "conda-starlette": CONF / "conda-starlette" / "gunicorn_conf.py",
    "inboard-base": CONF / "inboard" / "gunicorn_conf.py",
    "uvicorn-gunicorn": CONF / "uvicorn-gunicorn" / "gunicorn_conf.py",
    "poetry": CONF / "poetry" / "gunicorn_configuration.py",
    "meinheld-flask": CONF / "meinheld-flask" / "gunicorn_conf.py",
}
CORES = int(resources.read(environ={}).cpus.value or 1)
STOP = 5.0  # seconds that a stop may take when idle


def says(text: str, name: str = "app") -> str:
    """An ASGI application that answers every request with a text."""
    return f"""
async def {name}(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({{"type": message["type"] + ".complete"}})
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    body = {text!r}.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""


def variables(mooring: Starter, profile: str, environ: dict[str, Any]) -> dict[str, Any]:
    """The image's environment, but on loopback and with its application root in the test's folder."""
    return {"MOORING_PROFILE": profile, "MOORING_APP_ROOT": mooring.folder, "HOST": "127.0.0.1", **environ}


def serve(mooring: Starter, profile: str, files: dict[str, str] | None = None, **environ: Any) -> Mooring:
    """`mooring run` as in the image, once all its workers serve; no files: an empty application root."""
    return mooring.run(files=files or {}, **variables(mooring, profile, environ))


def start(
    mooring: Starter, profile: str, *args: str, files: dict[str, str] | None = None, **environ: Any
) -> Mooring:
    """`mooring run`, or another command, as in the image; waits for nothing."""
    return mooring.start(*(args or ("run",)), files=files, **variables(mooring, profile, environ))


def stop(app: Mooring) -> None:
    """TERM: it is idle, so it ends in time, and with 0."""
    begun = time.monotonic()
    assert app.stop() == 0
    assert time.monotonic() - begun < STOP


def refused(app: Mooring, code: int) -> str:
    """It ends with this code and has listened nowhere; the last line on stderr."""
    assert app.wait_exit() == code
    assert "listening at" not in app.stderr
    return app.last_line


def check(mooring: Starter, profile: str, **environ: Any) -> dict[str, Any]:
    """`mooring check --json`."""
    app = start(mooring, profile, "check", "--json", **environ)
    app.wait_exit()
    return dict(json.loads(app.stdout))


def summary(app: Mooring) -> dict[str, Any]:
    """The JSON object that it printed at the start."""
    return dict(json.loads(app.wait_log(re.compile(r"^\{.*\}$"))))


def run_conf(profile: str, **environ: Any) -> subprocess.CompletedProcess[str]:
    """`python CONF` with no other variables than these."""
    clean = {"PATH": os.environ["PATH"], **{name: str(value) for name, value in environ.items()}}
    return subprocess.run(
        [sys.executable, CONFS[profile]], env=clean, capture_output=True, text=True, check=False
    )


def conf(profile: str, **environ: Any) -> dict[str, Any]:
    """What `python CONF` prints: one JSON object, and nothing else."""
    done = run_conf(profile, **environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return dict(json.loads(done.stdout))
