"""A stop with something in flight: what was queued is served, and who comes then is refused at once."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from pathlib import Path

import pytest
from certificates import Authority
from draining import request
from harness import eventually, pids_marked, read_all
from variants import Variant, each_variant

# Both wait for the file `go`: `held` as its engine has it wait, `block` without letting anything else run.
APPS = """
import os, subprocess, time
import anyio

def block():
    while not os.path.exists("go"):
        time.sleep(0.01)

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    print("serving " + scope["path"], flush=True)
    if scope["path"] == "/block":
        block()
    while scope["path"] == "/held" and not os.path.exists("go"):
        await anyio.sleep(0.01)
    body = scope["path"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    print("serving " + path, flush=True)
    if path == "/program":
        subprocess.run(["sh", "-c", "sleep 0.3; echo it runs; until test -e go; do sleep 0.05; done"])
    if path in {"/block", "/held"}:
        block()
    start_response("200 OK", [("Content-Length", str(len(path)))])
    return [path.encode()]
"""
LENT = [Variant("asgi", "uvicorn"), Variant("wsgi", "granian"), Variant("wsgi", "gunicorn", "gthread")]
AT_ONCE = 10.0  # seconds in which a newcomer has to be refused: much less than anything here is held


def start(mooring, interface="asgi", command="run", **environ):
    files = {"main.py": APPS}
    if command == "run":
        return mooring.run(f"main:{interface}", files=files, **environ)
    app = mooring.start(command, f"main:{interface}", files=files, **environ)
    app.wait_ready(1)
    return app


def refused(app, index=0):
    """Whether a newcomer is refused by the kernel."""
    try:
        with app.connect(index):
            return False
    except ConnectionRefusedError:
        return True


def listening(app, port, path=""):
    """Whether any process on this machine listens there (as ss -l)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    if any(row[3] == "0A" and int(row[1].partition(":")[2], 16) == port for row in rows):
        return True
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return bool(path) and any(row[-1] == path and row[3] == "00010000" for row in rows)


def answered(client, path):
    with client:
        answer = read_all(client)
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(path)


@each_variant
def test_newcomers_are_refused_while_one_worker_is_busy(mooring, variant):
    environ = {**variant.environ, "WEB_CONCURRENCY": "2", "BIND": "127.0.0.1:0,unix:app.sock"}
    app = start(mooring, variant.interface, **environ)
    port, path = app.port, app.urls[1].removeprefix("unix:")
    held = request(app, "/held")
    app.wait_log("serving /held")
    app.signal(signal.SIGTERM)
    eventually(lambda: refused(app) and refused(app, 1), "nobody listens", timeout=AT_ONCE)
    assert not listening(app, port, path)
    app.write("go", "")
    assert answered(held, b"/held")
    assert app.wait_exit() == 0
    assert not Path(path).exists()


@each_variant
def test_what_was_queued_is_served_by_a_worker_that_was_blocked(mooring, variant):
    """Its event loop is blocked when the stop comes: it has accepted nothing, and cannot look at anything."""
    app = start(mooring, variant.interface, **variant.environ)
    blocked = request(app, "/block")
    app.wait_log("serving /block")
    queued = [request(app, f"/queued{number}") for number in range(5)]
    app.signal(signal.SIGTERM)
    eventually(lambda: refused(app), "nobody listens", timeout=AT_ONCE)
    app.write("go", "")
    assert answered(blocked, b"/block")
    for number, client in enumerate(queued):
        assert answered(client, b"/queued%d" % number)
    assert app.wait_exit() == 0


def test_a_worker_in_a_system_call_that_the_kernel_restarts_closes_its_listener_too(mooring):
    app = start(
        mooring, "wsgi", workers=1, MOORING_ENGINE="gunicorn", WORKER_CLASS="sync", GRACEFUL_TIMEOUT=20
    )
    held = request(app, "/program")
    app.wait_log("it runs")  # and is waited for
    app.signal(signal.SIGTERM)
    eventually(lambda: refused(app), "nobody listens", timeout=AT_ONCE)
    app.write("go", "")
    assert answered(held, b"/program")
    assert app.wait_exit() == 0


TLS = {
    "uvicorn": ("asgi", {"MOORING_ENGINE": "uvicorn"}),
    "asyncio": ("asgi", {"MOORING_ENGINE": "uvicorn", "MOORING_LOOP": "asyncio"}),
    "hypercorn": ("asgi", {"MOORING_ENGINE": "hypercorn"}),
    "trio": ("asgi", {"MOORING_ENGINE": "hypercorn", "WORKER_CLASS": "trio"}),
    "uvicorn-worker": ("asgi", {"MOORING_ENGINE": "gunicorn"}),
    "gunicorn-asgi": ("asgi", {"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "asgi"}),
    "sync": ("wsgi", {"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "sync"}),
}


@pytest.mark.parametrize("name", TLS)
def test_what_was_queued_is_served_over_tls_too(mooring, name, tmp_path):
    interface, environ = TLS[name]
    authority = Authority(tmp_path)
    certificate, key = authority.issue(1)
    more = {"MOORING_TLS_CERTIFICATE": certificate, "MOORING_TLS_KEY": key, "GRACEFUL_TIMEOUT": 20}
    app = start(mooring, interface, workers=1, **more, **environ)
    context = ssl.create_default_context(cafile=str(authority.path))
    with context.wrap_socket(app.connect(), server_hostname="localhost") as blocked:
        blocked.sendall(b"GET /block HTTP/1.1\r\nhost: t\r\n\r\n")
        app.wait_log("serving /block")
        plain = app.connect()
        app.signal(signal.SIGTERM)
        eventually(lambda: refused(app), "nobody listens", timeout=AT_ONCE)
        app.write("go", "")
        with context.wrap_socket(plain, server_hostname="localhost") as queued:
            queued.sendall(b"GET /queued HTTP/1.1\r\nhost: t\r\n\r\n")
            assert read_all(queued).endswith(b"/queued")
        assert read_all(blocked).endswith(b"/block")
    assert app.wait_exit() == 0


def test_templates_companions_and_helpers_hold_no_listener(mooring):
    app = start(
        mooring,
        workers=2,
        MOORING_PRELOAD="warn",
        MOORING_COMPANIONS="sh -c 'trap : TERM; echo companion; while ! test -e go; do sleep 0.05; done'",
        GRACEFUL_TIMEOUT=20,
    )
    app.wait_log("companion")
    held = request(app, "/held")
    app.wait_log("serving /held")
    app.signal(signal.SIGTERM)
    eventually(lambda: refused(app), "nobody listens", timeout=AT_ONCE)
    app.write("go", "")
    assert answered(held, b"/held")
    assert app.wait_exit() == 0
    assert pids_marked(app.mark) == []


def test_in_dev_newcomers_are_refused_too(mooring):
    app = start(mooring, command="dev")
    held = request(app, "/held")
    app.wait_log("serving /held")
    app.signal(signal.SIGINT)
    eventually(lambda: refused(app), "nobody listens", timeout=1.5)  # its grace period is 2 s
    app.write("go", "")
    assert answered(held, b"/held")
    assert app.wait_exit() == 0


def test_with_a_drain_delay_newcomers_are_served_and_then_refused(mooring):
    app = start(mooring, workers=2, MOORING_DRAIN_DELAY=1.5, GRACEFUL_TIMEOUT=20)
    held = request(app, "/held")
    app.wait_log("serving /held")
    began = time.monotonic()
    app.signal(signal.SIGTERM)
    app.wait_log("stopping")
    assert app.get("/late").text == "/late"
    eventually(lambda: refused(app), "nobody listens", timeout=1.5 + AT_ONCE)
    assert time.monotonic() - began >= 1.5
    app.write("go", "")
    assert answered(held, b"/held")
    assert app.wait_exit() == 0


@pytest.mark.parametrize("variant", LENT, ids=str)
def test_a_listener_that_somebody_gave_us_stays_theirs(mooring, variant):
    """Who comes in the drain waits in the owner's queue, and the owner can accept."""
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen(16)
        owner.settimeout(60)
        app = mooring.run(
            f"main:{variant.interface}",
            files={"main.py": APPS},
            options={"pass_fds": [owner.fileno()]},
            BIND=f"fd://{owner.fileno()}",
            **variant.environ,
        )
        held = request(app, "/held")
        app.wait_log("serving /held")
        app.signal(signal.SIGTERM)
        app.wait_log("stopping")
        ours = f"socket:[{Path(f'/proc/self/fd/{owner.fileno()}').stat().st_ino}]"
        eventually(lambda: not holders(app, ours), "only the owner has it")
        newcomer = request(app, "/new")
        app.write("go", "")
        assert answered(held, b"/held")
        assert app.wait_exit() == 0
        with newcomer, owner.accept()[0] as taken:
            assert taken.recv(100).startswith(b"GET /new")


def holders(app, what):
    """The processes of an instance that have this open."""
    found = []
    for pid in pids_marked(app.mark):
        try:
            links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:  # it has just ended, or closed one
            continue
        if what in links:
            found.append(pid)
    return found
