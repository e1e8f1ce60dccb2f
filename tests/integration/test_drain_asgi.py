"""The drain on uvicorn and hypercorn: nothing is lost in a roll, nobody holds a stop, and cuts are named."""

from __future__ import annotations

import re
import signal
import time

import pytest
from draining import CLOSE_1012, UPGRADE, come_back, read_until, request, stop_in_a_stream_and_an_upload
from harness import read_all
from traffic import APP, Traffic

KINDS = {
    "uvicorn-uvloop": {"MOORING_ENGINE": "uvicorn"},
    "uvicorn-asyncio": {"MOORING_ENGINE": "uvicorn", "MOORING_LOOP": "asyncio"},
    "hypercorn-asyncio": {"MOORING_ENGINE": "hypercorn"},
    "hypercorn-uvloop": {"MOORING_ENGINE": "hypercorn", "MOORING_LOOP": "uvloop"},
    "hypercorn-trio": {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"},
}
MARGIN = 4  # seconds from the last client's end to the supervisor's, on a busy machine
SLOW = """
    if path == "/wait":
        print("waiting", flush=True)
        await asyncio.sleep(float(query))
"""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def run(mooring, kind, workers=1, **more):
    source = APP.replace('    if path == "/slow":', SLOW.strip("\n") + '\n    if path == "/slow":')
    if kind.endswith("trio"):
        source = source.replace("asyncio", "trio")
    return mooring.run("main:app", files={"main.py": source}, workers=workers, **KINDS[kind], **more)


def roll(app, count):
    """That many rolls in a row."""
    first = app.status()["generation"]
    for generation in range(first + 1, first + 1 + count):
        app.signal(signal.SIGHUP)
        app.wait_log(f"rolled: generation {generation} serves")
        app.wait_ready(2)


def lose_nothing(mooring, kind, rolls):
    app = run(mooring, kind, workers=2)
    began = time.monotonic()
    with Traffic(app.port) as traffic:
        roll(app, rolls)
    took = time.monotonic() - began
    print(f"{kind}: {rolls} rolls in {took:.0f} s, {traffic.total} requests, failed: {traffic.failed}")
    assert traffic.failed == {}, traffic.found
    assert {"fast", "slow", "stream", "upload", "paused", "websocket"} <= set(traffic.ok)
    assert traffic.found["announced"] >= rolls * 8  # the load was there in each of them
    assert app.stop() == 0
    assert "Traceback" not in app.stderr


def test_rolls_under_full_load_lose_nothing(mooring, kind):
    lose_nothing(mooring, kind, 5)


@pytest.mark.longrun
@pytest.mark.timeout(900)
def test_thirty_rolls_under_full_load_lose_nothing(mooring, kind):
    lose_nothing(mooring, kind, 30)


def test_idle_clients_and_a_silent_websocket_do_not_hold_a_stop(mooring, kind):
    app = run(mooring, kind, GRACEFUL_TIMEOUT=20, MOORING_DRAIN_IDLE=1)
    with app.connect() as fresh, request(app, "/fast") as kept, request(app, "/ws", UPGRADE) as silent:
        read_until(kept, b"fast ")
        read_until(silent, b"\r\n\r\n")
        began = time.monotonic()
        assert app.stop() == 0
        took = time.monotonic() - began
        assert (fresh.recv(1), kept.recv(1)) == (b"", b"")
        assert read_all(silent) == CLOSE_1012
    assert 1 <= took < 1 + MARGIN


def test_a_client_that_comes_back_in_time_is_answered_and_told(mooring, kind):
    """Idle when the drain begins, it sends one more request on its connection."""
    app = run(mooring, kind, GRACEFUL_TIMEOUT=20, MOORING_DRAIN_IDLE=15)
    with request(app, "/fast") as kept, request(app, "/wait?3") as held:
        read_until(kept, b"fast ")
        app.wait_log("waiting")
        app.signal(signal.SIGTERM)
        app.wait_log("stopping")
        come_back(kept)  # while `held` is in flight
        assert read_all(held).endswith(b"wait 3")
    assert app.wait_exit() == 0


def test_a_stream_and_an_upload_in_flight_are_finished(mooring, kind):
    stop_in_a_stream_and_an_upload(run(mooring, kind))


def test_what_outlives_the_grace_period_is_cut_and_named(mooring, kind):
    app = run(mooring, kind, GRACEFUL_TIMEOUT=2)
    with request(app, "/wait?1000") as client:
        app.wait_log("waiting")
        began = time.monotonic()
        assert app.stop() == 0
        assert 1 < time.monotonic() - began < 2 + MARGIN
        assert b"200 OK" not in read_all(client)
    line = app.wait_log(re.compile("outlived the grace period"))
    assert "1 request outlived" in line
    assert "GET /wait" in line
