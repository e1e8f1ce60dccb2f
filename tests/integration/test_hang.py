"""Workers that hang: seen, dumped with the function's name, killed and replaced; nobody else is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest
from harness import ASGI_APP, WSGI_APP

BLOCKING = ASGI_APP.replace(
    'case "/":',
    """case "/block":
            block_the_loop()
        case "/regex":
            backtrack_for_ever()
        case "/":""",
).replace(
    'VERSION = "1"',
    """import re, time
VERSION = "1"


def block_the_loop():
    time.sleep(60)


def backtrack_for_ever():
    re.match(r"(a+)+$", "a" * 64 + "b")
""",
)
BLOCKING_WSGI = WSGI_APP.replace(
    "def app(environ, start_response):",
    """import time


def block_a_thread():
    time.sleep(60)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/block":
        block_a_thread()""",
)


class Block:
    """Requests that are never answered, each in a thread; they end with their connection."""

    def __init__(self, app, *paths):
        self.threads = [threading.Thread(target=self._ask, args=(app, path), daemon=True) for path in paths]
        for thread in self.threads:
            thread.start()

    def _ask(self, app, path):
        with contextlib.suppress(OSError, ValueError, EOFError):
            app.get(path)


def hang(app):
    """The first of last_hangs."""
    return app.wait_status(lambda s: s["last_hangs"])["last_hangs"][0]


@pytest.mark.parametrize(
    ("engine", "more"),
    [
        ("uvicorn", {"MOORING_LOOP": "uvloop"}),
        ("uvicorn", {"MOORING_LOOP": "asyncio"}),
        ("granian", {}),
        ("hypercorn", {}),
        ("hypercorn", {"MOORING_WORKER_CLASS": "trio"}),
    ],
    ids=lambda each: each if isinstance(each, str) else "-".join(each.values()),
)
def test_a_blocking_call_is_dumped_by_name_and_the_other_serves_on(mooring, engine, more):
    app = mooring.run(
        workers=2, files={"main.py": BLOCKING}, MOORING_ENGINE=engine, MOORING_TIMEOUT=1, **more
    )
    before = set(app.ready())
    Block(app, "/block?token=s3cret")
    line = app.wait_log("is hung: no move for")
    app.wait_log("in block_the_loop")
    found = hang(app)
    assert found["pid"] in before
    assert f"(pid {found['pid']})" in line
    assert "in block_the_loop (" in line
    assert "raise MOORING_TIMEOUT (1 s)" in line
    assert "in block_the_loop" in found["stacks"][1]
    assert 0.9 <= found["silent_s"] < 10
    assert [(r["method"], r["path"]) for r in found["requests"]] == [("GET", "/block")]
    assert found["requests"][0]["age_s"] >= 0.5
    assert found["memory_bytes"] > 1_000_000
    assert any("in block_the_loop" in each for each in found["stacks"])
    assert "s3cret" not in json.dumps(found)
    after = set(app.wait_ready(2, without=[found["pid"]]))
    assert after & before == before - {found["pid"]}  # the other one is still there
    assert app.get("/").text == "hello"
    exits = app.wait_status(lambda s: s["last_exits"])["last_exits"]
    assert [each["kind"] for each in exits] == ["heartbeat_deadline"]
    assert app.stop() == 0


def test_the_lock_may_be_held_for_ever(mooring):
    app = mooring.run(
        workers=2, files={"main.py": BLOCKING}, MOORING_TIMEOUT=1, MOORING_ADMIN_BIND="127.0.0.1:0"
    )
    Block(app, "/regex")
    assert any("in backtrack_for_ever" in each for each in hang(app)["stacks"])
    assert app.get("/").text == "hello"
    assert app.stop() == 0


def test_idle_workers_and_slow_requests_are_no_hang(mooring):
    app = mooring.run(workers=2, MOORING_TIMEOUT=1)
    before = app.ready()
    assert app.get("/slow?s=4").text == "hello"
    assert app.ready() == before
    assert app.status()["last_hangs"] == []
    assert app.stop() == 0


@pytest.mark.parametrize("engine", ["granian", "hypercorn"])
def test_of_wsgi_threads_all_must_be_blocked(mooring, engine):
    app = mooring.run(
        workers=1, files={"main.py": BLOCKING_WSGI}, MOORING_ENGINE=engine, MOORING_TIMEOUT=1,
        MOORING_THREADS=3,
    )  # fmt: skip
    (before,) = app.ready()
    Block(app, "/block", "/block")
    app.wait_status(lambda s: any(r["age_s"] > 4 for r in s["requests_in_flight"]))
    assert app.ready() == [before]
    assert app.get("/pid").text == str(before)
    Block(app, "/block")
    found = hang(app)
    assert found["pid"] == before
    assert len(found["requests"]) == 3
    assert sum("in block_a_thread" in each for each in found["stacks"]) == 3
    app.wait_ready(1, without=[before])
    assert app.get("/").text == "hello"
    assert app.stop() == 0


def test_a_blocked_pool_is_seen_while_requests_are_refused_all_the_time(mooring):
    app = mooring.run(
        workers=1, files={"main.py": BLOCKING_WSGI}, MOORING_TIMEOUT=1, MOORING_THREADS=2,
        MOORING_MAX_IN_FLIGHT=2,
    )  # fmt: skip
    (before,) = app.ready()
    Block(app, "/block", "/block")
    app.wait_status(lambda s: len(s["requests_in_flight"]) == 2)
    while not app.status()["last_hangs"]:
        with contextlib.suppress(OSError):  # its end
            app.get("/")
    assert hang(app)["pid"] == before
    assert app.stop() == 0


MOVING = """
import os, time


def app(environ, start_response):
    path, head = environ["PATH_INFO"], [("Content-Type", "text/plain")]
    start_response("200 OK", head)
    if path == "/pid":
        return [str(os.getpid()).encode()]
    if path == "/upload":
        return [str(len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))).encode()]
    return {"/ticks": ticks, "/large": large, "/stuck": stuck}[path]()


def ticks():
    for _ in range(20):
        yield b"tick "
        time.sleep(0.2)


def large():
    for _ in range(3):
        yield b"x" * (8 << 20)


def stuck():
    yield b"first "
    yield b"second "
    block_a_thread()


def block_a_thread():
    time.sleep(60)
"""


class Client:
    """A slow client in a thread; `result` is what it got."""

    def __init__(self, app, path, talk):
        self.result = None
        self.thread = threading.Thread(target=self._run, args=(app, path, talk), daemon=True)
        self.thread.start()

    def _run(self, app, path, talk):
        with socket.create_connection(("127.0.0.1", app.port), timeout=60) as sock:
            self.result = talk(sock, path)

    def wait(self):
        self.thread.join(90)
        return self.result


def drink(sock, path):
    """Read the answer to its end as it comes."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
    with sock.makefile("rb") as file:
        return file.read()


def sip(sock, path):
    """Read 4 MiB within 5 s, and the rest at once."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
    got = 0
    for _ in range(25):
        time.sleep(0.2)  # the client's slowness itself
        wanted = 160 << 10
        while wanted and (part := sock.recv(wanted)):
            wanted -= len(part)
            got += len(part)
    while part := sock.recv(1 << 20):
        got += len(part)
    return got


def drip(sock, path):
    """Send 20 KiB within 4 s."""
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 20480\r\n\r\n"
    sock.sendall(head.encode())
    for _ in range(20):
        sock.sendall(b"x" * 1024)
        time.sleep(0.2)  # the client's slowness itself
    with sock.makefile("rb") as file:
        return file.read()


SYNC = {"WORKER_CLASS": "sync", "MOORING_TIMEOUT": 2}


@pytest.mark.parametrize(
    ("engine", "path", "talk"),
    [
        ("granian", "/ticks", drink),
        ("granian", "/large", sip),
        ("granian", "/upload", drip),
        ("hypercorn", "/ticks", drink),
        ("hypercorn", "/large", sip),
        ("gunicorn", "/ticks", drink),
        ("gunicorn", "/large", sip),
        ("gunicorn", "/upload", drip),
    ],
)
def test_threads_that_send_or_receive_are_no_hang(mooring, engine, path, talk):
    more = {"MOORING_TIMEOUT": 1, "MOORING_THREADS": 2} if engine != "gunicorn" else SYNC
    app = mooring.run(workers=1, files={"main.py": MOVING}, MOORING_ENGINE=engine, **more)
    before = app.get("/pid").text
    clients = [Client(app, path, talk) for _ in range(2 if engine != "gunicorn" else 1)]
    for result in [each.wait() for each in clients]:
        if talk is drink:
            assert result.count(b"tick ") == 20
        elif talk is sip:
            assert result > 3 * (8 << 20)
        else:
            assert b"20480" in result
    assert app.get("/pid").text == before
    assert app.status()["last_hangs"] == []
    assert app.stop() == 0


@pytest.mark.parametrize("engine", ["granian", "hypercorn"])
def test_streams_of_which_none_moves_are_a_hang(mooring, engine):
    app = mooring.run(
        workers=1, files={"main.py": MOVING}, MOORING_ENGINE=engine, MOORING_TIMEOUT=1, MOORING_THREADS=2
    )
    for _ in range(2):
        Client(app, "/stuck", drink)
    line = app.wait_log("is hung: no move for")
    assert "in block_a_thread (" in line
    assert "raise MOORING_TIMEOUT (1 s) or MOORING_THREADS (2)" in line
    assert "in block_a_thread" in hang(app)["stacks"][1]
    assert app.stop() == 0


@pytest.mark.parametrize("application", [ASGI_APP, WSGI_APP], ids=["asgi", "wsgi"])
def test_a_stopped_worker_is_killed_though_it_cannot_answer(mooring, application):
    app = mooring.run(workers=2, files={"main.py": application}, MOORING_TIMEOUT=1)
    victim, other = app.ready()
    os.kill(victim, signal.SIGSTOP)
    found = hang(app)
    assert (found["pid"], found["stacks"]) == (victim, [])
    app.wait_log("no stacks: it did not answer in time")
    assert other in app.wait_ready(2, without=[victim])
    assert app.stop() == 0


@pytest.mark.parametrize("seconds", [1.7, 3])  # the lifecycle's own pardon comes after more than 2
@pytest.mark.parametrize("everyone", [False, True], ids=["the supervisor alone", "the workers too"])
def test_after_a_freeze_nobody_is_killed(mooring, everyone, seconds):
    app = mooring.run(workers=3, MOORING_TIMEOUT=1)
    before = app.ready()
    frozen = [app.pid, *(before[:2] if everyone else ())]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    os.kill(before[2], signal.SIGKILL)  # the first thing that it will hear of
    threading.Event().wait(seconds)  # the freeze itself: there is nothing to wait for
    for pid in frozen:  # the supervisor first
        os.kill(pid, signal.SIGCONT)
    uptime = app.status()["uptime_s"]
    found = app.wait_status(lambda s: s["uptime_s"] > uptime + 3)
    assert [each["kind"] for each in found["last_exits"]] == ["signal"]
    assert found["last_hangs"] == []
    assert app.wait_ready(3)[:2] == before[:2]
    assert app.stop() == 0


def test_without_a_timeout_it_may_hang(mooring):
    app = mooring.run(workers=1, files={"main.py": BLOCKING}, MOORING_TIMEOUT=0, GRACEFUL_TIMEOUT=1)
    Block(app, "/block")
    app.wait_status(lambda s: any(r["age_s"] > 3 for r in s["requests_in_flight"]))
    assert app.status()["last_hangs"] == []
    assert app.stop() == 0


def test_a_stop_during_a_hang_ends_within_the_grace_period(mooring):
    app = mooring.run(workers=1, files={"main.py": BLOCKING}, MOORING_TIMEOUT=30, GRACEFUL_TIMEOUT=2)
    Block(app, "/block")
    app.wait_status(lambda s: s["requests_in_flight"])
    assert app.stop(timeout=10) == 0
