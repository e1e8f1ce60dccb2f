"""The order to drain is heard whatever the application has done to SIGTERM; the application hears of it."""

from __future__ import annotations

import signal

import pytest
from draining import read_until, request
from harness import read_all
from variants import ASGI, WSGI, each_asgi

ASGI_APP = """
import asyncio, os, signal, sys

def told(number, frame):
    print("app heard TERM", file=sys.stderr, flush=True)
    sys.exit(0)

HANDLERS = {"exits": told, "default": signal.SIG_DFL, "ignored": signal.SIG_IGN}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if os.environ["HANDLER"] == "of the loop":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told, 0, None)
        else:
            signal.signal(signal.SIGTERM, HANDLERS[os.environ["HANDLER"]])
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan shutdown", file=sys.stderr, flush=True)
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
    if "trio" in sys.modules:
        import trio
        await trio.sleep(0.5)
    else:
        await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b"%d done" % os.getpid()})
"""
WSGI_APP = """
import atexit, os, signal, sys, time

def told(number, frame):
    print("app heard TERM", file=sys.stderr, flush=True)
    sys.exit(0)

HANDLERS = {"exits": told, "default": signal.SIG_DFL, "ignored": signal.SIG_IGN}
signal.signal(signal.SIGTERM, HANDLERS[os.environ["HANDLER"]])
atexit.register(lambda: print("lifespan shutdown", file=sys.stderr, flush=True))

def app(environ, start_response):
    start_response("200 OK", [])
    yield b"begun "
    time.sleep(0.5)
    yield b"%d done" % os.getpid()
"""
CASES = [
    *((variant, "exits") for variant in (*ASGI, *WSGI)),
    *((variant, "default") for variant in (ASGI[0], WSGI[0], WSGI[-1])),
    (ASGI[0], "of the loop"),
    (ASGI[0], "ignored"),
]


def start(mooring, variant, handler, **more):
    source = ASGI_APP if variant.interface == "asgi" else WSGI_APP
    return mooring.run(files={"main.py": source}, HANDLER=handler, **variant.environ, **more)


def ends_well(app, handler):
    with request(app, "/") as client:
        read_until(client, b"begun \r\n")
        app.signal(signal.SIGTERM)
        assert b" done" in read_all(client)
    assert app.wait_exit() == 0
    assert "lifespan shutdown" in app.stderr
    assert "grace deadline" not in app.stderr
    assert ("app heard TERM" in app.stderr) == (handler in {"exits", "of the loop"})


@pytest.mark.parametrize(("variant", "handler"), CASES, ids=lambda each: str(each).replace(" ", "-"))
def test_a_stop(mooring, variant, handler):
    ends_well(start(mooring, variant, handler), handler)


def test_a_stop_of_a_worker_of_a_template(mooring):
    ends_well(start(mooring, WSGI[0], "exits", MOORING_PRELOAD="on"), "exits")


def test_a_stop_where_gunicorn_preloads(mooring):
    ends_well(start(mooring, WSGI[4], "exits", GUNICORN_CMD_ARGS="--preload"), "exits")


@pytest.mark.parametrize("variant", [ASGI[0], WSGI[0], ASGI[-1]], ids=str)
def test_a_roll_loses_nothing(mooring, variant):
    app = start(mooring, variant, "default")
    with request(app, "/") as client:
        read_until(client, b"begun \r\n")
        app.signal(signal.SIGHUP)
        assert b" done" in read_all(client)
    app.wait_log("rolled: generation 2 serves")
    app.wait_ready(1)
    assert [each["kind"] for each in app.status()["last_exits"]] == ["drained"]
    assert app.stop() == 0


STREAMS = """
import asyncio, signal, sys
import uvicorn

heard, own = [], uvicorn.Server.handle_exit

def handle_exit(*given):
    heard.append(True)
    own(*given)

uvicorn.Server.handle_exit = handle_exit

def handler():
    return getattr(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), "should_exit", None)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    ended = {"/patch": lambda: heard, "/handler": handler}[scope["path"]]
    while not ended():
        await send({"type": "http.response.body", "body": b"tick ", "more_body": True})
        if "trio" in sys.modules:
            import trio
            await trio.sleep(0.1)
        else:
            await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"farewell"})
"""


@each_asgi
def test_streams_that_wait_for_uvicorns_sign_end_at_once(mooring, variant):
    """By both ways in which sse-starlette, for example, waits for it; not at the end of the grace period."""
    app = mooring.run(files={"main.py": STREAMS}, **{**variant.environ, "MOORING_GRACEFUL_TIMEOUT": 600})
    with request(app, "/patch") as first, request(app, "/handler") as second:
        read_until(first, b"tick \r\n")
        read_until(second, b"tick \r\n")
        app.signal(signal.SIGTERM)
        assert b"farewell" in read_all(first)
        assert b"farewell" in read_all(second)
    assert app.wait_exit() == 0
