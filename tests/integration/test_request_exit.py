"""SystemExit in a request is that request's failure alone; an engine that ends by itself is replaced."""

from __future__ import annotations

import pytest
from draining import read_until, request
from harness import read_all
from variants import ASGI, each_variant

ASGI_APP = """
import asyncio, os, signal, sys

async def leave():
    sys.exit(5)

def sleep(seconds):
    if "trio" in sys.modules:
        import trio
        return trio.sleep(seconds)
    return asyncio.sleep(seconds)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/exit":
        sys.exit(2)
    if scope["path"] == "/interrupt":
        raise KeyboardInterrupt
    if scope["path"] == "/child":
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            await sleep(0.02)
        await send({"type": "http.response.start", "status": 200 + ended[1] // 256, "headers": []})
        return await send({"type": "http.response.body"})
    if scope["path"] == "/child-task":
        if (pid := os.fork()) == 0:
            await asyncio.ensure_future(leave())
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            await sleep(0.02)
        await send({"type": "http.response.start", "status": 200 + ended[1] // 256, "headers": []})
        return await send({"type": "http.response.body"})
    if scope["path"] == "/task":
        task = asyncio.ensure_future(leave())
        await asyncio.sleep(0.1)
    if scope["path"] == "/stop-loop":
        asyncio.get_running_loop().stop()
    if scope["path"] == "/should-exit":
        signal.getsignal(signal.SIGTERM).__self__.should_exit = True
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d " % os.getpid(), "more_body": True})
    if scope["path"] == "/held":
        while os.path.exists("held"):
            await sleep(0.02)
    await send({"type": "http.response.body", "body": b"done"})
"""
WSGI_APP = """
import os, sys, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/exit":
        sys.exit(2)
    if environ["PATH_INFO"] == "/interrupt":
        raise KeyboardInterrupt
    if environ["PATH_INFO"] == "/child":
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        start_response("%d Child" % (200 + os.waitpid(pid, 0)[1] // 256), [("Content-Length", "0")])
        return
    start_response("200 OK", [])
    yield b"%d " % os.getpid()
    while environ["PATH_INFO"] == "/held" and os.path.exists("held"):
        time.sleep(0.02)
    yield b"done"
"""


def start(mooring, variant):
    source = ASGI_APP if variant.interface == "asgi" else WSGI_APP
    return mooring.run(files={"main.py": source, "held": ""}, **variant.environ)


@each_variant
def test_an_exit_fails_one_request(mooring, variant):
    app = start(mooring, variant)
    pid = app.get().text
    if variant.worker_class != "sync":  # which has one request at a time
        held = request(app, "/held")
        read_until(held, b" \r\n")
    for path in ("/exit", "/interrupt"):
        assert app.get(path).status == 500
        app.wait_log(f"in GET {path}: the worker serves on")
    assert app.get().text == pid
    if variant.worker_class != "sync":
        (app.folder / "held").unlink()
        assert b"done" in read_until(held, b"0\r\n\r\n")
        held.close()
    assert app.stop() == 0


@each_variant
def test_an_exit_in_a_child_that_a_request_has_forked_ends_the_child(mooring, variant):
    app = start(mooring, variant)
    pid = app.get().text
    assert app.get("/child").status == 200 + 7
    assert app.get().text == pid
    assert app.stop() == 0
    assert "the worker serves on" not in app.stderr
    assert "Traceback" not in app.stderr
    assert app.stdout.count("GET /child") == 1


ON_ASYNCIO = [variant for variant in ASGI if variant.worker_class != "trio"]


@pytest.mark.parametrize("variant", ON_ASYNCIO, ids=str)
def test_an_exit_in_a_task_ends_the_task(mooring, variant):
    app = start(mooring, variant)
    assert app.get("/task").text == app.get().text
    app.wait_log("SystemExit(5) in a task of the application")
    assert app.stop() == 0


@pytest.mark.parametrize("variant", [each for each in ON_ASYNCIO if each.engine != "gunicorn"], ids=str)
def test_an_exit_in_a_childs_task_ends_the_child(mooring, variant):
    app = start(mooring, variant)
    assert app.get("/child-task").status == 200 + 5
    assert app.stop() == 0
    assert "the worker serves on" not in app.stderr


@pytest.mark.parametrize("path", ["/stop-loop", "/should-exit"])
@pytest.mark.parametrize("variant", ON_ASYNCIO, ids=str)
def test_a_worker_whose_engine_the_application_ends_is_replaced(mooring, variant, path):
    app = start(mooring, variant)
    [before] = app.ready()
    with request(app, "/held") as held:
        read_until(held, b" \r\n")
        app.get(path)
        app.wait_log("the worker finishes its requests and is replaced")
        if variant.engine != "gunicorn":  # whose arbiter starts the next worker when this one has ended
            app.wait_log("worker 0 is ready", count=2)
        (app.folder / "held").unlink()
        assert b"done" in read_all(held)
    app.wait_ready(1, without=[before])
    assert app.get().status == 200
    assert app.stop() == 0
