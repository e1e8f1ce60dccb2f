"""A stop that comes while gunicorn's own workers boot is heard by every worker class, not waited out."""

from __future__ import annotations

import signal

import pytest
from harness import ASGI_APP, WSGI_APP

HELD = """
import os, time

print("importing", flush=True)
while os.path.exists("held"):
    time.sleep(0.01)
"""
CLASSES = {
    "sync": WSGI_APP,
    "gthread": WSGI_APP,
    "gevent": WSGI_APP,
    "asgi": ASGI_APP,
    "uvicorn_worker.UvicornWorker": ASGI_APP,
}


@pytest.mark.parametrize("name", CLASSES)
def test_term_while_the_application_is_imported(mooring, name):
    files = {"main.py": HELD + CLASSES[name], "held": ""}
    app = mooring.start("run", files=files, WORKER_CLASS=name, WEB_CONCURRENCY=1, GRACEFUL_TIMEOUT=50)
    app.wait_log("importing")
    app.signal(signal.SIGTERM)
    app.wait_log("Handling signal: term")  # and has told its workers at once
    (app.folder / "held").unlink()
    assert app.wait_exit() == 0
    assert "grace deadline passed" not in app.stderr
    assert app.leftovers == []


def test_term_while_the_second_worker_boots(mooring):
    app = mooring.run(files={"main.py": HELD + ASGI_APP}, workers=1, WORKER_CLASS="asgi", GRACEFUL_TIMEOUT=50)
    app.write("held", "")
    app.signal(signal.SIGTTIN)
    app.wait_log("importing", count=2)
    app.signal(signal.SIGTERM)
    app.wait_log("Handling signal: term")
    (app.folder / "held").unlink()
    assert app.wait_exit() == 0
    assert "grace deadline passed" not in app.stderr


CONF = """
import os, signal


def post_fork(server, worker):
    if worker.age == 2:
        os.kill(os.getpid(), signal.SIGTERM)
"""


FORKS = """
import os, signal


def held():
    return signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


os.register_at_fork(before=lambda: print("at the fork:", held(), flush=True))


def post_fork(server, worker):
    print("in the worker:", held(), flush=True)


def child_exit(server, worker):
    print("in the arbiter:", held(), flush=True)
"""


def test_term_at_the_fork_waits_until_the_worker_can_hear_it(mooring):
    files = {"main.py": WSGI_APP, "gunicorn.conf.py": FORKS}
    app = mooring.run(files=files, workers=2, WORKER_CLASS="sync")
    assert app.stop() == 0
    for line in ("at the fork: True", "in the worker: False", "in the arbiter: False"):
        assert app.stdout.count(line) == 2


@pytest.mark.parametrize("name", CLASSES)
def test_term_before_a_worker_has_taken_its_signals(mooring, name):
    files = {"main.py": CLASSES[name], "gunicorn.conf.py": CONF}
    app = mooring.run(files=files, workers=1, WORKER_CLASS=name)
    app.signal(signal.SIGTTIN)
    app.wait_log("Booting worker with pid", count=3)  # the second has left
    assert app.stop() == 0
