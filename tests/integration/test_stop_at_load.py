"""TERM at full load: with a drain delay nobody who goes away once readiness is off loses anything."""

from __future__ import annotations

import signal
import time

import pytest
import traffic
from harness import eventually

KINDS = {
    "uvicorn": (traffic.APP, {"MOORING_ENGINE": "uvicorn"}),
    "granian-asgi": (traffic.APP, {"MOORING_ENGINE": "granian"}),
    "granian-wsgi": (traffic.WSGI_APP, {"MOORING_ENGINE": "granian"}),
    "hypercorn-asyncio": (traffic.APP, {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "asyncio"}),
    "hypercorn-uvloop": (traffic.APP, {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "uvloop"}),
    "uvicorn-worker": (traffic.APP, {"MOORING_ENGINE": "gunicorn"}),
    "gthread": (
        traffic.WSGI_APP,
        {"MOORING_ENGINE": "gunicorn", "GUNICORN_CMD_ARGS": "-k gthread --threads 16"},
    ),
}
DELAY, GRACE = 3, 8
MARGIN = 3.0  # seconds, on a busy machine


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def start(mooring, kind, **more):
    source, environ = KINDS[kind]
    more = {"MOORING_DRAIN_DELAY": DELAY, "GRACEFUL_TIMEOUT": GRACE, **environ, **more}
    return mooring.run("main:app", files={"main.py": source}, workers=2, **more)


def websockets(kind):
    return int(KINDS[kind][0] is traffic.APP)


def test_with_a_drain_delay_clients_that_heed_readiness_lose_nothing(mooring, kind):
    app = start(mooring, kind)
    with traffic.Traffic(app.port, websockets=websockets(kind)) as load:
        began = time.monotonic()
        app.signal(signal.SIGTERM)
        eventually(lambda: app.control(path="/readyz").status == 503, "readiness goes off")
        noticed = time.monotonic()
        time.sleep(DELAY / 2)  # a balancer asks now and then: it sends for a part of the delay
        load.stop()
        told = time.monotonic() - began
    assert app.wait_exit() == 0
    took = time.monotonic() - began
    print(
        f"{kind}: {load.total} requests, {load.failed}, 503 after {noticed - began:.3f} s, exit {took:.1f} s"
    )
    assert told < DELAY + 1  # else this test has shown less
    assert load.failed == {}, load.found
    assert DELAY <= took < DELAY + GRACE + MARGIN
    assert app.leftovers == []


def test_who_stays_is_told_to_go_and_cannot_hold_the_stop(mooring, kind):
    """Full load until the very end."""
    app = start(mooring, kind, MOORING_DRAIN_DELAY=1)
    with traffic.Traffic(app.port, websockets=websockets(kind)) as load:
        began = time.monotonic()
        assert app.stop() == 0
        took = time.monotonic() - began
    print(f"{kind}: {load.total} requests, {load.failed}, exit after {took:.1f} s")
    assert took < 1 + GRACE + MARGIN
    assert {each.partition(": ")[2] for each in load.failed} <= {"refused", "reset before"}, load.found
    # Only who came when the last worker had left: no connection is lost on which a worker had answered.
    assert [each for each in load.failures if each[3]] == [], load.found["first"]
    assert app.leftovers == []
