"""No descriptor left, in a worker or in the supervisor: what can be served is, and it recovers by itself."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time

import pytest
from harness import ASGI_APP, WSGI_APP, eventually
from processes import descriptors, log_writers, settled, state

ENGINES = {
    "uvicorn-uvloop": (ASGI_APP, {"MOORING_ENGINE": "uvicorn", "MOORING_LOOP": "uvloop"}),
    "uvicorn-asyncio": (ASGI_APP, {"MOORING_ENGINE": "uvicorn", "MOORING_LOOP": "asyncio"}),
    "granian-asgi": (ASGI_APP, {"MOORING_ENGINE": "granian"}),
    "granian-wsgi": (WSGI_APP, {"MOORING_ENGINE": "granian"}),
    "hypercorn": (ASGI_APP, {"MOORING_ENGINE": "hypercorn"}),
    "hypercorn-trio": (ASGI_APP, {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"}),
}
MANY = 60


BLOCKING = ASGI_APP.replace(
    'case "/":', 'case "/block":\n            block_the_loop()\n        case "/":'
).replace('VERSION = "1"', 'VERSION = "1"\n\n\ndef block_the_loop():\n    __import__("time").sleep(60)')


@contextlib.contextmanager
def exhausted(pid, spare=0):
    """All descriptors of a process but so many are taken."""
    held = descriptors(pid)
    free = next(number for number in range(len(held) + 1) if number not in held)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free + spare, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def crowd(app):
    """That many connections at once, each with a request."""
    clients = []
    for _ in range(MANY):
        client = app.connect()
        with contextlib.suppress(OSError):  # uvloop resets it
            client.sendall(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        clients.append(client)
    return clients


def whole(client):
    """Whether an answer comes, as a whole."""
    received = b""
    while not received.endswith(b"hello"):
        piece = client.recv(4096)
        if not piece:
            return False
        received += piece
    return True


def answered(clients):
    """Those that have their answer; waits for the first."""
    found = []
    for number, client in enumerate(clients):
        client.settimeout(0.05 if number else 20)
        with contextlib.suppress(OSError):
            if whole(client):
                found.append(client)
    return found


def hello(app):
    """Whether a new client is served."""
    with contextlib.suppress(OSError):
        return app.get("/").text == "hello"
    return False


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_without_descriptors_serves_whom_it_has_and_recovers(mooring, engine):
    source, environ = ENGINES[engine]
    app = mooring.run(workers=1, files={"main.py": source}, MOORING_DRAIN_IDLE="0.5", **environ)
    (pid,) = app.ready()
    with exhausted(pid, spare=12):
        clients = crowd(app)
        served = answered(clients)
        app.wait_log("this worker has no descriptor left")
        assert 4 <= len(served) < MANY
        served[0].settimeout(20)
        served[0].sendall(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        assert whole(served[0])
        for client in clients:
            client.close()
        eventually(lambda: hello(app), "an answer, with the limit still there")
        clients = crowd(app)
        assert len(answered(clients)) >= 4
        app.signal(signal.SIGHUP)  # and it can still drain
        app.wait_log("rolled: generation 2 serves")
        eventually(lambda: state(pid) == "", "the end of the drained worker")
        for client in clients:
            client.close()
    assert app.status()["last_exits"][-1]["kind"] == "drained"
    assert app.get("/").text == "hello"
    assert app.ready() != [pid]
    assert len(app.stderr.splitlines()) < 60  # it is said, but not again and again
    assert "Traceback" not in app.stderr
    assert app.stop() == 0


def serving_pid(app):
    """The pid of a worker that serves."""
    return int(app.get("/pid").text)


def test_a_supervisor_without_descriptors_watches_on_and_recovers(mooring):
    app = mooring.run(workers=3, files={"main.py": BLOCKING}, MOORING_TIMEOUT=1)
    before, (writer,) = len(settled(app.pid)), log_writers(app.pid)
    with exhausted(app.pid):
        with app.connect() as client:  # first: whoever ends gives descriptors back
            client.sendall(b"GET /block HTTP/1.1\r\nhost: t\r\n\r\n")
            app.wait_log("is hung: no move for")  # it is dumped, killed, and named
            app.wait_log("in block_the_loop")
        app.wait_log("could not be spawned: Too many open files")
        os.kill(serving_pid(app), signal.SIGKILL)
        os.kill(writer, signal.SIGKILL)
        app.wait_log("the access log's writer has ended")
        app.signal(signal.SIGUSR1)
        app.signal(signal.SIGHUP)
        app.signal(signal.SIGTTIN)
        # not at the first try: a worker that found room to start has the same limit, and uvloop resets
        eventually(lambda: hello(app), "an answer of the third one")
        waiting = threading.Thread(target=app.control, daemon=True)  # answered later
        waiting.start()
        time.sleep(1)  # a lack that lasts: nobody can announce that nothing happens
        assert app.process.poll() is None
        eventually(lambda: hello(app), "another one")
    waiting.join(20)
    assert not waiting.is_alive()
    app.wait_ready(4, timeout=90)
    eventually(lambda: log_writers(app.pid), "another log writer")
    # of the fourth worker: its socket, and the file for its stacks
    assert len(settled(app.pid)) == before + 2
    assert "Traceback" not in app.stderr.replace("Traceback (most recent call last) of", "")
    assert app.stop() == 0
