"""What an application relies on, and mooring's own way would leave out: it is there, or one line says so."""

from __future__ import annotations

import re

import pytest
from harness import Mooring, eventually

ASGI_ENGINES = ["uvicorn", "granian", "hypercorn", "gunicorn"]
WSGI_ENGINES = ["granian", "hypercorn", "gunicorn"]

# -- a task on a loop that was made at the import ----------------------------------------------------------

TICKING = """
import asyncio
ticks = 0
async def consume():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.01)
loop = asyncio.new_event_loop()
SET
task = loop.create_task(consume())
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(ticks).encode()})
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "1")])
    return [b"x"]
"""
LOST = "nothing runs the event loop of consume (main.py:"


@pytest.mark.parametrize("engine", ASGI_ENGINES)
def test_the_loop_that_the_application_has_set_at_its_import_is_run(mooring, engine):
    code = TICKING.replace("SET", "asyncio.set_event_loop(loop)")
    app = mooring.run(workers=1, files={"main.py": code}, MOORING_ENGINE=engine)
    first = int(app.get().text)
    eventually(lambda: int(app.get().text) > first, "ticks")
    assert app.stop() == 0
    assert LOST not in app.stderr


@pytest.mark.parametrize("engine", ["uvicorn", "gunicorn"])
def test_a_task_that_never_runs_is_named(mooring, engine):
    app = mooring.run(workers=1, files={"main.py": TICKING.replace("SET", "")}, MOORING_ENGINE=engine)
    app.wait_log(LOST)
    assert app.get().text == "0"


@pytest.mark.parametrize("engine", ["granian", "gunicorn"])  # hypercorn serves WSGI on a loop
def test_a_task_beside_a_wsgi_application_is_named(mooring, engine):
    code = TICKING.replace("SET", "asyncio.set_event_loop(loop)")
    app = mooring.run("main:wsgi", workers=1, files={"main.py": code}, MOORING_ENGINE=engine)
    app.wait_log(LOST)


def test_workers_that_a_template_forks_do_not_share_its_loop(mooring):
    code = TICKING.replace("SET", "asyncio.set_event_loop(loop)")
    app = mooring.run(workers=2, files={"main.py": code}, MOORING_PRELOAD="warn")
    app.wait_log(LOST, count=2)
    assert app.get().status == 200


# -- filters and handlers of the servers' access loggers ---------------------------------------------------

FILTERED = """
import logging
def no_health(record):
    return "/health" not in record.getMessage()
def add():
    for name in ("uvicorn.access", "granian.access", "hypercorn.access", "gunicorn.access"):
        logging.getLogger(name).addFilter(no_health)
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/add":
        add()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/add":
        add()
    start_response("200 OK", [("Content-Length", "1")])
    return [b"x"]
"""


def logged(app: Mooring, *paths: str) -> list[str]:
    """The paths of the access log, after requests for these paths and a last one."""
    for path in (*paths, "/last"):
        app.get(path)
    app.wait_log("GET /last ")
    assert app.stop() == 0
    return re.findall(r'"GET (/\S*) HTTP', app.stdout)


@pytest.mark.parametrize(
    ("engine", "attribute"),
    [*((each, "app") for each in ASGI_ENGINES), *((each, "wsgi") for each in WSGI_ENGINES)],
)
def test_a_filter_counts_from_the_moment_when_it_is_added(mooring, engine, attribute):
    files = {"main.py": FILTERED}
    app = mooring.run(f"main:{attribute}", workers=1, files=files, MOORING_ENGINE=engine)
    found = logged(app, "/health", "/add", "/health", "/orders")
    assert found == ["/health", "/add", "/orders", "/last"]


def test_a_filter_of_a_preloaded_application_counts(mooring):
    files = {"main.py": FILTERED + "\nadd()\n"}
    app = mooring.run(workers=1, files=files, MOORING_PRELOAD="warn")
    assert logged(app, "/health", "/orders") == ["/orders", "/last"]


# -- WebSockets for a WSGI application ---------------------------------------------------------------------

# What simple_websocket does, and with it flask_sock and Flask-SocketIO: it takes the socket from the environ.
UPGRADING = """
import simple_websocket
def app(environ, start_response):
    if environ.get("HTTP_UPGRADE") == "websocket" and "gunicorn.socket" not in environ:
        raise RuntimeError("Cannot obtain socket from WSGI environment.")
    start_response("200 OK", [("Content-Length", "1")])
    return [b"x"]
"""
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
HANDSHAKE["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.mark.parametrize("engine", WSGI_ENGINES)
def test_a_websocket_that_cannot_be_names_the_engine_that_can(mooring, engine):
    files = {"main.py": UPGRADING, "simple_websocket.py": ""}
    app = mooring.run(workers=1, files=files, MOORING_ENGINE=engine)
    app.get()
    assert "MOORING_ENGINE" not in app.stderr
    for _ in range(2):
        works = app.get("/ws", headers=HANDSHAKE).status == 200
        assert works == (engine == "gunicorn")
    if not works:
        app.wait_log("a WebSocket handshake for /ws: ")
    assert app.stop() == 0
    assert app.stderr.count("MOORING_ENGINE=gunicorn has") == (not works)


# -- several workers ---------------------------------------------------------------------------------------

POLLING = """
from engineio.base_server import BaseServer
server = BaseServer()
from prometheus_client import Info
Info("shop_build", "Build.").info({"version": "1"})
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
"""
ENGINEIO = 'class BaseServer:\n    transports = ["polling", "websocket"]\n'


@pytest.mark.parametrize(
    "more", [{}, {"MOORING_PRELOAD": "warn"}, {"MOORING_ENGINE": "gunicorn"}], ids=["", "preload", "gunicorn"]
)
def test_what_several_workers_break_is_said_once(mooring, more):
    files = {"main.py": POLLING, "engineio/__init__.py": "", "engineio/base_server.py": ENGINEIO}
    app = mooring.run(workers=2, files=files, **more)
    app.wait_ready(2)
    assert app.stop() == 0
    assert len(re.findall("socket.io: long polling .* MOORING_WORKERS=1", app.stderr)) == 1
    assert len(re.findall("prometheus_client: shop_build: .* MOORING_APP_METRICS=false", app.stderr)) == 1


def test_one_worker_breaks_nothing_of_it(mooring):
    files = {"main.py": POLLING, "engineio/__init__.py": "", "engineio/base_server.py": ENGINEIO}
    app = mooring.run(workers=1, files=files)
    assert app.stop() == 0
    assert "MOORING_WORKERS" not in app.stderr
