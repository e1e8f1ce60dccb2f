"""Limits on requests: so many at once, each for so long. On every engine; no worker has to die for it."""

from __future__ import annotations

import socket
import threading

import pytest
from harness import eventually

ENGINES = {
    "uvicorn": {},
    "granian": {"MOORING_ENGINE": "granian"},
    "hypercorn": {"MOORING_ENGINE": "hypercorn"},
    "trio": {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"},
    "gunicorn": {"MOORING_ENGINE": "gunicorn"},
}

# /hold waits until there is a file of the name `release`; on any loop, so it looks again and again.
ASGI = """
import os, sys

async def nap():
    if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_task():
        await sys.modules["trio"].sleep(0.01)
    else:
        import asyncio
        await asyncio.sleep(0.01)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    path = scope["path"]
    if path == "/own":
        raise TimeoutError("its own")
    if path == "/behind":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        for _ in range(100):
            await nap()
        print("done behind the response", flush=True)
        return
    if path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while path in ("/hold", "/stream") and not os.path.exists("release"):
        await nap()
    if path != "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
WSGI = """
import os, time

def app(environ, start_response):
    while environ["PATH_INFO"] == "/hold" and not os.path.exists("release"):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


SLOW = """
import os, time

def stubborn():
    while not os.path.exists("release"):
        time.sleep(0.01)

def stream():
    yield b"begun"
    stubborn()
    yield b"never"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":
        stubborn()
        print("came back", flush=True)
    if path == "/body":
        environ["wsgi.input"].read()
    if path == "/own":
        raise ValueError("its own")
    if path == "/stream":
        start_response("200 OK", [])
        return stream()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
THREADED = {
    "granian": {"MOORING_ENGINE": "granian"},
    "hypercorn": {"MOORING_ENGINE": "hypercorn"},
    "trio": {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"},
    "gthread": {"MOORING_ENGINE": "gunicorn", "MOORING_WORKER_CLASS": "gthread"},
}
ON_WSGI = {
    **THREADED,
    "gevent": {"MOORING_ENGINE": "gunicorn", "MOORING_WORKER_CLASS": "gevent"},
    "sync": {"MOORING_ENGINE": "gunicorn", "MOORING_WORKER_CLASS": "sync"},
}


def _metric(app, name):
    found = [line for line in app.control("GET", "/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(found[0].split()[1])


def _held(app, count):
    """`count` requests that wait for /release, all in flight; their statuses come in the list."""
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(app.get("/hold").status), daemon=True)
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    app.wait_status(lambda s: sum(row["in_flight"] for row in s["workers"]) == count)
    return threads, statuses


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_too_much_is_refused_at_once(mooring, engine):
    app = mooring.run(files={"main.py": ASGI}, workers=1, MOORING_MAX_IN_FLIGHT="2", **ENGINES[engine])
    threads, statuses = _held(app, 2)
    for _ in range(3):
        answer = app.get("/")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert _metric(app, "mooring_http_requests_rejected_total") == 3
    assert statuses == []
    app.write("release", "")
    for thread in threads:
        thread.join(20)
    assert statuses == [200, 200]
    assert app.get("/").status == 200


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("engine", ["granian", "hypercorn", "trio"])
def test_what_is_too_much_is_refused_on_wsgi_up_to_the_number_of_threads(mooring, engine, count):
    app = mooring.run(
        files={"main.py": WSGI}, workers=1, MOORING_MAX_IN_FLIGHT=str(count), MOORING_THREADS="4",
        **ENGINES[engine],
    )  # fmt: skip
    threads, statuses = _held(app, count)
    for _ in range(3):
        answer = app.get("/")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert statuses == []
    app.write("release", "")
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * count
    assert app.get("/").status == 200


def test_a_limit_that_threads_never_reach_is_warned_of(mooring):
    app = mooring.run(files={"main.py": WSGI}, workers=1, MOORING_MAX_IN_FLIGHT="9", MOORING_THREADS="4")
    app.wait_log("max_in_flight=9 refuses nothing: a WSGI worker runs 4 requests at once")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_done_behind_a_response_has_no_deadline(mooring, engine):
    """A background task of a framework's; the client keeps its connection, and may use it again."""
    app = mooring.run(files={"main.py": ASGI}, workers=1, MOORING_REQUEST_TIMEOUT="0.5", **ENGINES[engine])
    assert app.get("/behind").text == "ok"
    app.wait_log("done behind the response")
    assert _metric(app, "mooring_http_requests_timed_out_total") == 0
    assert "Traceback" not in app.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_what_takes_too_long_is_answered_for_and_the_worker_lives(mooring, engine):
    app = mooring.run(files={"main.py": ASGI}, workers=1, MOORING_REQUEST_TIMEOUT="0.3", **ENGINES[engine])
    before = app.ready()
    assert app.get("/hold").status == 504
    assert app.get("/own").status == 500  # the application's own TimeoutError is nobody else's
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        try:
            while data := client.recv(4096):
                received += data
        except ConnectionResetError:
            pass
    assert b"begun" in received
    assert not received.endswith(b"0\r\n\r\n")  # a cut response does not look whole
    assert _metric(app, "mooring_http_requests_timed_out_total") == 2
    assert app.get("/").text == "ok"
    assert app.ready() == before
    eventually(lambda: '"GET /hold HTTP/1.1" 504' in app.stdout, "its line")


@pytest.mark.parametrize("engine", ON_WSGI)
def test_what_takes_too_long_on_wsgi_is_answered_for_and_named(mooring, engine):
    environ = {"workers": 1, "MOORING_REQUEST_TIMEOUT": "0.5", **ON_WSGI[engine]}
    if engine != "sync":
        environ["MOORING_THREADS"] = "8"
    app = mooring.run(files={"main.py": SLOW}, **environ)
    assert app.get("/hold?secret").status == 504
    app.wait_log("GET /hold took over 0.5 s: 504")
    app.wait_log("in stubborn")  # its stack
    if engine != "sync":  # that worker had one thread, and is replaced
        with socket.create_connection(("127.0.0.1", app.port), timeout=20) as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = b""
            try:
                while data := client.recv(4096):
                    received += data
            except ConnectionResetError:
                pass
        assert b"begun" in received
        assert not received.endswith(b"0\r\n\r\n")  # a cut response does not look whole
        assert _metric(app, "mooring_http_requests_timed_out_total") == 2
    assert app.get("/own").status == 500
    assert app.get("/").text == "ok"
    assert "secret" not in app.stderr
    app.write("release", "")
    if engine in THREADED:
        app.wait_log("came back")  # and what it answers is dropped
    assert app.get("/").text == "ok"


@pytest.mark.parametrize("engine", [*THREADED, "sync"])
def test_a_worker_without_half_of_its_threads_is_replaced(mooring, engine):
    environ = {"MOORING_REQUEST_TIMEOUT": "0.3", "MOORING_GRACEFUL_TIMEOUT": "5", **ON_WSGI[engine]}
    if engine != "sync":  # which has one
        environ["MOORING_THREADS"] = "4"
    app = mooring.run(files={"main.py": SLOW}, workers=1, **environ)
    before = app.ready()
    for _ in range(1 if engine == "sync" else 2):
        assert app.get("/hold").status == 504
    app.wait_log("threads are lost in requests of over 0.3 s")
    eventually(lambda: app.ready() and app.ready() != before, "another worker")
    assert app.get("/").text == "ok"


def test_a_body_that_was_awaited_at_the_deadline_is_no_request(mooring):
    """gunicorn reads bodies from the connection itself: the lost thread would read the next request."""
    app = mooring.run(
        files={"main.py": SLOW}, workers=1, MOORING_THREADS="8", MOORING_REQUEST_TIMEOUT="0.3",
        **ON_WSGI["gthread"],
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as client:
        client.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        received = b""
        while data := client.recv(4096):  # it ends: nothing more is read from it
            received += data
    assert received.startswith(b"HTTP/1.1 504 ")
    assert app.get("/").text == "ok"
