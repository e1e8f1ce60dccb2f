"""What the application prints is in the log at the end of the line, and survives the worker's kill."""

from __future__ import annotations

import os
import signal

import pytest
from harness import ASGI_APP, WSGI_APP

PRINTS = "import os, signal\nprint('IMPORTED')\n"
KILLED = "print('ABOUT-TO-HANG'); os.kill(os.getpid(), signal.SIGKILL)"
ASGI = PRINTS + ASGI_APP.replace('case "/":', f'case "/die":\n            {KILLED}\n        case "/":')
WSGI = PRINTS + WSGI_APP.replace(
    "def app(environ, start_response):",
    f"def app(environ, start_response):\n    if environ['PATH_INFO'] == '/die':\n        {KILLED}",
)
ENGINES = {
    "uvicorn": (ASGI, {"MOORING_ENGINE": "uvicorn"}),
    "granian": (ASGI, {"MOORING_ENGINE": "granian"}),
    "granian-wsgi": (WSGI, {"MOORING_ENGINE": "granian"}),
    "hypercorn": (ASGI, {"MOORING_ENGINE": "hypercorn"}),
    "hypercorn-wsgi": (WSGI, {"MOORING_ENGINE": "hypercorn"}),
    "gunicorn-asgi": (ASGI, {"WORKER_CLASS": "asgi"}),
    "gunicorn-uvicorn": (ASGI, {"WORKER_CLASS": "uvicorn_worker.UvicornWorker"}),
    "gunicorn-sync": (WSGI, {"WORKER_CLASS": "sync"}),
    "gunicorn": (WSGI, {"MOORING_ENGINE": "gunicorn"}),
    "preload": (ASGI, {"MOORING_PRELOAD": "refuse"}),
}


@pytest.mark.parametrize("name", ENGINES)
def test_a_printed_line_is_there_before_the_worker_is_killed(mooring, name):
    source, environ = ENGINES[name]
    app = mooring.run("main:app", workers=1, files={"main.py": source}, **environ)
    with pytest.raises(OSError):
        app.get("/die")
    app.wait_log("ABOUT-TO-HANG")
    assert app.stop() == 0
    assert app.stdout.count("ABOUT-TO-HANG\n") == 1


def test_gunicorn_prints_an_import_once_for_each_worker(mooring):
    app = mooring.run("main:app", workers=1, files={"main.py": WSGI}, MOORING_ENGINE="gunicorn")
    assert app.stop() == 0
    assert app.stdout.count("IMPORTED\n") == 1


@pytest.mark.parametrize(
    "first",
    [
        "import sys\nsys.stdout.close()\n",
        "import sys\nsys.stdout = None\n",
        "import io, sys\nsys.stdout = io.StringIO()\n",
        "import sys\nsys.stdout.detach()\n",
    ],
    ids=["closed", "none", "replaced", "detached"],
)
def test_a_stream_that_is_the_applications_own_is_left_alone(mooring, first):
    app = mooring.run("main:app", workers=1, files={"main.py": first + ASGI_APP})
    assert app.get("/").status == 200
    os.kill(app.ready()[0], signal.SIGTERM)
    assert app.stop() == 0


def test_a_start_without_stdout_serves(mooring):
    prefix = ["sh", "-c", 'exec "$@" >&-', "sh"]
    app = mooring.start("run", "main:app", prefix=prefix, files={"main.py": ASGI}, WEB_CONCURRENCY=1)
    app.wait_ready(1)
    assert app.get("/").status == 200
    assert app.stop() == 0
