"""Many silent WebSockets in a stop: each is told 1012, one after the other, and nobody holds the stop."""

from __future__ import annotations

import contextlib
import selectors
import signal
import time

import pytest
import traffic
from draining import CLOSE_1012, UPGRADE, read_until, request

KINDS = {
    "uvicorn": {"MOORING_ENGINE": "uvicorn"},
    "granian": {"MOORING_ENGINE": "granian"},
    "hypercorn-asyncio": {"MOORING_ENGINE": "hypercorn"},
    "hypercorn-trio": {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"},
    "gunicorn-uvicorn": {"MOORING_ENGINE": "gunicorn"},
    "gunicorn-asgi": {"MOORING_ENGINE": "gunicorn", "GUNICORN_CMD_ARGS": "-k asgi"},
}
MANY = 200  # spread over 2 s: engines/common/websockets.py
GRACE = 30


@pytest.fixture(params=KINDS)
def app(request, mooring):
    source = traffic.APP.replace("asyncio", "trio") if request.param.endswith("trio") else traffic.APP
    options = {"GRACEFUL_TIMEOUT": GRACE, "MOORING_DRAIN_IDLE": 1, **KINDS[request.param]}
    return mooring.run("main:app", files={"main.py": source}, workers=1, **options)


def closes(clients):
    """When each client got the close frame, seconds; they never answer it."""
    arrived, received = {}, dict.fromkeys(clients, b"")
    with selectors.DefaultSelector() as selector:
        for each in clients:
            selector.register(each, selectors.EVENT_READ)
        while received:
            ready = selector.select(GRACE)
            assert ready, f"{len(received)} of {len(clients)} were told nothing"
            for key, _ in ready:
                piece = key.fileobj.recv(100)
                assert piece, "closed without a 1012"
                received[key.fileobj] += piece
                if len(received[key.fileobj]) >= len(CLOSE_1012):
                    arrived[key.fileobj] = time.monotonic()
                    assert received.pop(key.fileobj) == CLOSE_1012
                    selector.unregister(key.fileobj)
    return list(arrived.values())


def test_many_silent_websockets_are_told_one_after_the_other(app):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(request(app, "/ws", UPGRADE)) for _ in range(MANY)]
        for each in clients:
            read_until(each, b"\r\n\r\n")
        began = time.monotonic()
        app.signal(signal.SIGTERM)
        arrived = closes(clients)
        assert app.wait_exit(GRACE * 2) == 0
        took = time.monotonic() - began
    print(f"{MANY} closes within {max(arrived) - min(arrived):.1f} s, the stop took {took:.1f} s")
    assert max(arrived) - min(arrived) > 0.5
    assert took < GRACE / 2
    assert "outlived" not in app.stderr
    assert "Traceback" not in app.stderr
