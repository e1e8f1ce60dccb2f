"""A random worker killed each second at full load: lost is what that worker held, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import traffic
from harness import eventually
from processes import children, log_writers, resident_mib, settled, state

SIZE = 4
KINDS = {
    "uvicorn": (traffic.APP, {"MOORING_ENGINE": "uvicorn"}),
    "granian-asgi": (traffic.APP, {"MOORING_ENGINE": "granian"}),
    "granian-wsgi": (traffic.WSGI_APP, {"MOORING_ENGINE": "granian"}),
    "hypercorn": (traffic.APP, {"MOORING_ENGINE": "hypercorn"}),
}
# Before a connection's first answer nobody knows whose it is. Seconds from the kill until the client, which
# is busy with the others, sees the end of such a connection.
UNKNOWN = 2.0


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def kill_one(app, chance):
    """Kill a ready worker and wait until the size is restored: when, whom, and how long that took."""
    victim, began = chance.choice(app.ready()), time.monotonic()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: state(victim) == "", "its reaping")
    pids = app.wait_ready(SIZE)
    assert victim not in pids
    return began, victim, time.monotonic() - began


def one_a_second(app, count, seed):
    """That many kills, a second apart, or as soon as the last one's successor is ready."""
    chance, killed = random.Random(seed), []
    for _ in range(count):
        killed.append(kill_one(app, chance))
        time.sleep(max(0.0, killed[-1][0] + 1 - time.monotonic()))
    return killed


def innocent(failures, killed):
    """The failures on connections that no killed worker held."""
    pids, times = {pid for _, pid, _ in killed}, [when for when, _, _ in killed]
    return [
        each
        for each in failures
        if not (each[3] in pids or (not each[3] and any(0 <= each[0] - when < UNKNOWN for when in times)))
    ]


def survive(mooring, kind, count):
    seed = int(os.environ.get("KILL_SEED") or random.randrange(1 << 30))
    source, environ = KINDS[kind]
    app = mooring.run("main:app", files={"main.py": source}, workers=SIZE, ACCESS_LOG="", **environ)
    before, began = settled(app.pid), time.monotonic()
    with traffic.Traffic(app.port, websockets=int(source is traffic.APP)) as load:
        killed = one_a_second(app, count, seed)
    took = time.monotonic() - began
    slowest = max(each[2] for each in killed)
    print(
        f"{kind}: {count} kills in {took:.0f} s (KILL_SEED={seed}), {load.total} requests, failed: "
        f"{load.failed}; size restored after {slowest:.1f} s at most"
    )
    assert {each.partition(": ")[2] for each in load.failed} <= {
        "reset before",
        "reset amid",
        "cut",
        "closed idle",
    }
    assert innocent(load.failures, killed) == []
    assert len(load.failures) <= count * 17  # one for each connection, at most
    assert load.failures  # the load was there
    assert app.wait_ready(SIZE)
    assert len(settled(app.pid)) == len(before)
    assert sorted(children(app.pid)) == sorted([*app.ready(), *log_writers(app.pid)])
    assert resident_mib(app.pid) < 25
    assert app.status()["last_exits"][-1]["reason"] == "killed by SIGKILL"
    assert app.stop() == 0
    assert app.leftovers == []


@pytest.mark.timeout(300)
def test_ten_kills_cost_what_was_on_the_killed_workers_alone(mooring, kind):
    survive(mooring, kind, 10)


@pytest.mark.longrun
@pytest.mark.timeout(900)
def test_sixty_kills_cost_what_was_on_the_killed_workers_alone(mooring, kind):
    survive(mooring, kind, 60)
