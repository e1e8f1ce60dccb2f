"""Real meinheld under gunicorn, built as its users can today: its release of 2020 with a newer greenlet."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from draining import request
from harness import WSGI_APP, eventually, read_all
from processes import children
from profile_tools import serve

CLASS = "egg:meinheld#gunicorn_worker"
PROFILE = "meinheld-flask"
PAUSES = WSGI_APP.replace(
    "def app(environ, start_response):",
    "def app(environ, start_response):\n"
    "    __import__('time').sleep({'/slow': 2, '/hang': 600}.get(environ['PATH_INFO'], 0))",
)
pytestmark = pytest.mark.skipif(
    not shutil.which("cc") or not importlib.util.find_spec("pip"), reason="needs a C compiler and pip"
)
last_python = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="its module cannot be loaded from 3.13 on"
)


@pytest.fixture(scope="session")
def meinheld(tmp_path_factory):
    """A folder for PYTHONPATH with meinheld, without the greenlet that it asks for."""
    folder = tmp_path_factory.mktemp("meinheld")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", folder, "meinheld==1.0.2"],
        check=True,
    )  # fmt: skip
    return folder


def start(mooring, folder, **environ):
    environ = {"PYTHONPATH": folder, "WORKER_CLASS": CLASS, "ACCESS_LOG": "-", **environ}
    return serve(mooring, PROFILE, {"main.py": PAUSES}, **environ)


def arbiter_of_two(app):
    """gunicorn's first process, once both workers are there."""

    def found():
        return [pid for pid in children(app.pid) if len(children(pid)) == 2]

    return eventually(found, "two workers")[0]


@last_python
def test_it_serves(mooring, meinheld):
    app = start(mooring, meinheld, WEB_CONCURRENCY=2)
    answer = app.get()
    assert (answer.status, answer.text) == (200, "hello")
    assert answer.headers["server"] == "meinheld/1.0.2"
    assert f"Using worker: {CLASS}" in app.stderr
    arbiter_of_two(app)
    app.wait_log(re.compile(r'"GET / HTTP/1\.1" 200 5 '))
    assert app.stop() == 0


@last_python
def test_a_hung_worker_is_killed_and_a_healthy_one_is_not(mooring, meinheld):
    """gunicorn 22 and later do not see meinheld's own heartbeat."""
    app = start(mooring, meinheld, WEB_CONCURRENCY=2, TIMEOUT=3)
    arbiter = arbiter_of_two(app)
    before = set(children(arbiter))
    client = app.connect()
    client.sendall(b"GET /hang HTTP/1.1\r\nhost: t\r\n\r\n")
    (killed,) = re.findall(r"WORKER TIMEOUT \(pid:(\d+)\)", app.wait_log("WORKER TIMEOUT"))
    eventually(lambda: len(set(children(arbiter)) - {int(killed)}) == 2, "one in its place")
    assert len(set(children(arbiter)) & before) == 1  # the other one was idle all the time
    assert app.get().text == "hello"
    assert app.stderr.count("WORKER TIMEOUT") == 1
    assert app.stop() == 0


@last_python
def test_a_stop_lets_requests_end_and_does_not_wait_for_idle_connections(mooring, meinheld):
    app = start(mooring, meinheld, WEB_CONCURRENCY=1, MOORING_GRACEFUL_TIMEOUT=30)
    idle = app.connect()
    idle.sendall(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
    assert b"hello" in idle.recv(4096)
    answers = []
    slow = threading.Thread(target=lambda: answers.append(app.get("/slow")))
    slow.start()
    app.wait_status(lambda status: status["requests_in_flight"])
    app.signal(signal.SIGTERM)
    assert app.wait_exit(20) == 0
    slow.join()
    assert [(each.status, each.headers.get("connection")) for each in answers] == [(200, "close")]
    assert app.leftovers == []


@last_python
def test_a_stop_serves_what_was_queued_and_refuses_newcomers(mooring, meinheld):
    app = start(mooring, meinheld, WEB_CONCURRENCY=1, MOORING_GRACEFUL_TIMEOUT=30)
    slow = request(app, "/slow")
    app.wait_status(lambda status: status["requests_in_flight"])
    queued = request(app, "/queued")  # meinheld's only thread is in the other request
    app.signal(signal.SIGTERM)
    for client in (slow, queued):
        with client:
            assert read_all(client).endswith(b"hello")
    with pytest.raises(ConnectionRefusedError):
        app.connect()
    assert app.wait_exit(20) == 0


@pytest.mark.skipif(sys.version_info < (3, 13), reason="it can be loaded")
def test_where_it_cannot_be_loaded_one_line_says_what_serves(mooring, meinheld):
    app = start(mooring, meinheld)
    assert app.get().text == "hello"
    assert (
        f"WORKER_CLASS={CLASS} is ignored (meinheld cannot be imported by this Python): granian" in app.stderr
    )
    assert app.stop() == 0


def test_where_it_is_not_installed_one_line_says_what_serves(mooring):
    app = start(mooring, os.devnull)
    assert app.get().text == "hello"
    assert f"WORKER_CLASS={CLASS} is ignored (meinheld is not installed): granian serves" in app.stderr
    assert app.stop() == 0
