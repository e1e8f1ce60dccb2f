"""The drain on granian and gunicorn: no client that honours `Connection: close` loses anything."""

from __future__ import annotations

import re
import signal
import time

import pytest
import traffic
from draining import (
    CLOSE,
    CLOSE_1012,
    UPGRADE,
    come_back,
    read_until,
    request,
    stop_in_a_stream_and_an_upload,
)
from harness import read_all

ENGINES = {
    "granian-asgi": (traffic.APP, {"MOORING_ENGINE": "granian"}),
    "granian-wsgi": (traffic.WSGI_APP, {"MOORING_ENGINE": "granian"}),
    "uvicorn-worker": (traffic.APP, {"MOORING_ENGINE": "gunicorn"}),
    "gthread": (
        traffic.WSGI_APP,
        {"MOORING_ENGINE": "gunicorn", "GUNICORN_CMD_ARGS": "-k gthread --threads 16"},
    ),
}
MEASURED = {
    "gevent": (traffic.WSGI_APP, {"MOORING_ENGINE": "gunicorn", "GUNICORN_CMD_ARGS": "-k gevent"}),
    "sync": (traffic.WSGI_APP, {"MOORING_ENGINE": "gunicorn", "GUNICORN_CMD_ARGS": "-k sync"}),
    "asgi": (traffic.APP, {"MOORING_ENGINE": "gunicorn", "GUNICORN_CMD_ARGS": "-k asgi"}),
}


MARGIN = 4  # seconds from the last client's end to the supervisor's, on a busy machine
WAIT = """    if path == "/wait":
        print("waiting", flush=True)
        {}
    if path == "/slow":"""


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def start(mooring, name, workers=2, **more):
    source, environ = (ENGINES | MEASURED)[name]
    waiting = (
        "await asyncio.sleep(float(query))" if is_asgi(name) else 'time.sleep(float(environ["QUERY_STRING"]))'
    )
    source = source.replace('    if path == "/slow":', WAIT.format(waiting))
    more = {**environ, "MOORING_ACCESS_LOG": "", **more}
    return mooring.run("main:app", files={"main.py": source}, workers=workers, **more)


def is_asgi(name):
    return (ENGINES | MEASURED)[name][0] is traffic.APP


def rolls(mooring, name, count):
    app = start(mooring, name)
    with traffic.Traffic(app.port, websockets=int(is_asgi(name))) as load:
        for generation in range(2, count + 2):
            app.signal(signal.SIGHUP)
            app.wait_log(f"rolled: generation {generation} serves")
            app.wait_ready(2)
    print(f"{name}: {count} rolls:", load.total, "requests,", load.found)
    assert load.found["announced"] >= count * 5  # the load was there in each of them
    assert app.stop() == 0
    return load


def test_rolls_at_full_load_lose_nothing(mooring, engine):
    load = rolls(mooring, engine, 5)
    assert load.failed == {}, load.found


@pytest.mark.longrun
@pytest.mark.timeout(900)
def test_thirty_rolls_at_full_load_lose_nothing(mooring, engine):
    load = rolls(mooring, engine, 30)
    assert load.failed == {}, load.found


@pytest.mark.longrun
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MEASURED)
def test_thirty_rolls_are_measured(mooring, name):
    load = rolls(mooring, name, 30)
    assert load.total > sum(load.failed.values()) * 100, load.found


def test_idle_clients_and_a_silent_websocket_do_not_hold_a_stop(mooring, engine):
    app = start(mooring, engine, 1, GRACEFUL_TIMEOUT=20, MOORING_DRAIN_IDLE=1)
    with app.connect() as fresh, request(app, "/fast") as kept:
        read_until(kept, b"fast ")
        silent = request(app, "/ws", UPGRADE) if is_asgi(engine) else None
        if silent is not None:
            read_until(silent, b"\r\n\r\n")
        began = time.monotonic()
        assert app.stop() == 0
        took = time.monotonic() - began
        assert (fresh.recv(1), kept.recv(1)) == (b"", b"")
        if silent is not None:
            with silent:
                assert read_all(silent) == CLOSE_1012
    assert 0.9 <= took < 1 + MARGIN


def test_a_client_that_comes_back_in_time_is_answered_and_told(mooring, engine):
    """Idle when the drain begins, it sends one more request on its connection."""
    app = start(mooring, engine, 1, GRACEFUL_TIMEOUT=20, MOORING_DRAIN_IDLE=15)
    with request(app, "/fast") as kept, request(app, "/wait?3") as held:
        read_until(kept, b"fast ")
        app.wait_log("waiting")
        app.signal(signal.SIGTERM)
        app.wait_log("stopping")
        come_back(kept)  # while `held` is in flight
        answer = read_all(held)  # asked before the drain, and answered in it
        assert answer.endswith(b"wait 3")
        assert CLOSE in answer.lower()
    assert app.wait_exit() == 0


def test_a_stream_and_an_upload_in_flight_are_finished(mooring, engine):
    stop_in_a_stream_and_an_upload(start(mooring, engine, 1))


def test_what_outlives_the_grace_period_is_cut_and_named(mooring, engine):
    app = start(mooring, engine, 1, GRACEFUL_TIMEOUT=2)
    with request(app, "/wait?1000") as client:
        app.wait_log("waiting")
        began = time.monotonic()
        app.stop()
        assert 1 < time.monotonic() - began < 2 + MARGIN
        assert b"200 OK" not in read_all(client)
    line = app.wait_log(re.compile("outlived the grace period"))
    assert "1 request outlived" in line
    assert "GET /wait" in line
