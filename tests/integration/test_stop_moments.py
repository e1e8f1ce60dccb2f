"""TERM, storms and the supervisor's own death at the worst moments, under load where that makes it worse."""

from __future__ import annotations

import os
import signal
import time

import pytest
import traffic
from harness import ASGI_APP, eventually, free_port, pids_marked
from processes import state

BLOCKING = traffic.APP.replace(
    '    if path == "/slow":',
    '    if path == "/block":\n        __import__("time").sleep(600)\n    if path == "/slow":',
)
GATED = """
import os, time
if os.path.exists("held"):
    print("importing", flush=True)
    while os.path.exists("held"):
        time.sleep(0.01)
"""
MARGIN = 5.0  # seconds, on a busy machine


def test_term_during_a_roll_at_full_load_is_over_within_the_grace_period(mooring):
    app = mooring.run("main:app", files={"main.py": GATED + traffic.APP}, workers=2, GRACEFUL_TIMEOUT=8)
    with traffic.Traffic(app.port) as load:
        app.write("held", "")
        app.signal(signal.SIGHUP)
        app.wait_log("importing")
        began = time.monotonic()
        assert app.stop() == 0
        took = time.monotonic() - began
    assert took < 8 + MARGIN
    assert [each for each in load.failures if each[3]] == [], load.found["first"]  # none that a worker held
    assert app.leftovers == []


def test_term_while_a_hung_worker_is_dumped_ends_all_in_time(mooring):
    app = mooring.run(
        "main:app", files={"main.py": BLOCKING}, workers=2, MOORING_TIMEOUT=1, GRACEFUL_TIMEOUT=4
    )
    os.kill(app.ready()[0], signal.SIGSTOP)  # it cannot answer: its stacks are waited for
    with app.connect() as client:
        client.sendall(b"GET /block HTTP/1.1\r\nhost: t\r\n\r\n")
        app.wait_log("heartbeat deadline passed")
        began = time.monotonic()
        assert app.stop() == 0
        assert time.monotonic() - began < 4 + MARGIN
    assert app.leftovers == []


def test_a_hundred_hups_in_a_second_are_two_rolls_and_lose_nothing(mooring):
    app = mooring.run("main:app", files={"main.py": traffic.APP}, workers=2)
    with traffic.Traffic(app.port) as load:
        began = time.monotonic()
        for number in range(100):
            app.signal(signal.SIGHUP)
            time.sleep(max(0.0, began + number / 100 - time.monotonic()))
        took = time.monotonic() - began
        app.wait_status(lambda s: s["state"] == "serving" and s["generation"] > 1 and len(s["workers"]) == 2)
        app.wait_ready(2)
    assert load.failed == {}, load.found["first"]
    assert 2 <= app.status()["generation"] <= 2 + took * 3  # a roll takes a third of a second at least
    assert app.stop() == 0


def test_a_ttin_storm_at_full_load_is_followed_and_taken_back(mooring):
    app = mooring.run("main:app", files={"main.py": traffic.APP}, workers=1)
    with traffic.Traffic(app.port) as load:
        for _ in range(6):
            app.signal(signal.SIGTTIN)
            app.control()  # the loop has turned: equal signals that are pending are one, signal(7)
        eventually(lambda: app.status()["size"] == 7, "one more for each signal")
        for _ in range(5):
            app.signal(signal.SIGTTOU)
            app.control()
        app.wait_ready(2, timeout=90)
    assert load.failed == {}, load.found["first"]
    assert app.stop() == 0


def during_boot(mooring, port):
    app = mooring.start("run", files={"main.py": GATED + ASGI_APP, "held": ""}, PORT=port, WEB_CONCURRENCY=2)
    app.wait_log("importing")
    return app


def during_a_roll(mooring, port):
    app = mooring.run(files={"main.py": GATED + ASGI_APP}, PORT=port, workers=2)
    app.write("held", "")
    app.signal(signal.SIGHUP)
    app.wait_log("importing")
    return app


def during_a_hang(mooring, port):
    app = mooring.run(files={"main.py": ASGI_APP}, PORT=port, workers=2, MOORING_TIMEOUT=1)
    os.kill(app.ready()[0], signal.SIGSTOP)
    app.wait_log("heartbeat deadline passed")
    return app


def during_a_stop(mooring, port):
    app = mooring.run(files={"main.py": ASGI_APP}, PORT=port, workers=2, MOORING_DRAIN_DELAY=30)
    app.signal(signal.SIGTERM)
    app.wait_log("stopping")
    return app


@pytest.mark.parametrize("moment", [during_boot, during_a_roll, during_a_hang, during_a_stop])
def test_a_killed_supervisor_leaves_nobody_and_frees_the_port(mooring, moment):
    port = free_port()
    app = moment(mooring, port)
    eventually(lambda: len(pids_marked(app.mark)) >= 3, "a worker and the log writer")
    others = [pid for pid in pids_marked(app.mark) if pid != app.pid]
    os.kill(app.pid, signal.SIGKILL)
    app.process.wait()
    eventually(lambda: not any(state(pid) not in {"", "Z"} for pid in others), "the end of all", timeout=2)
    (mooring.folder / "held").unlink(missing_ok=True)
    again = mooring.run(files={"main.py": ASGI_APP}, PORT=port, workers=1)
    assert again.get("/").text == "hello"
    assert again.stop() == 0
