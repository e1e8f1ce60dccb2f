"""The soak: rolls, recycles, crashes, hangs and changes of size by a seeded schedule, under traffic.

A failure prints its seed; SOAK_SEED=17 lives the same schedule again, SOAK_SECONDS=600 takes longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time

import pytest
import traffic
from harness import eventually
from processes import children, log_writers, resident_mib, settled, state

SIZE = 3
BLOCKS = '    if path == "/block":\n        block_the_loop()\n    if path == "/slow":'
BLOCK = """

def block_the_loop():
    import time
    print("blocking", os.getpid(), flush=True)
    time.sleep(600)
"""
SOURCE = traffic.APP.replace('    if path == "/slow":', BLOCKS) + BLOCK


class Soak:
    """What befalls one instance. Each deed is awaited but for a hang, which goes on beside the others."""

    def __init__(self, app, seed):
        self.app, self.chance, self.size = app, random.Random(seed), SIZE
        self.did: dict[str, int] = {}
        self.lost: set[int] = set()  # the pids that a deed took away
        self.blocked = []
        self.round = []

    def deed(self):
        """The next one of a round, in which each comes once, in any order."""
        if not self.round:
            self.round = [self.roll, self.kill, self.hang, self.more, self.fewer, self.storm, self.rest]
            self.chance.shuffle(self.round)
        chosen = self.round.pop()
        self.did[chosen.__name__] = self.did.get(chosen.__name__, 0) + 1
        chosen()

    def roll(self):
        generation = self.app.status()["generation"]
        self.app.signal(signal.SIGHUP)
        self.app.wait_status(lambda s: s["generation"] > generation, 120)  # one may be queued behind another

    def kill(self):
        pids = self.app.ready()
        if len(pids) > 1:
            victim = self.chance.choice(pids)
            self.lost.add(victim)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def hang(self):
        client = self.app.connect()
        client.sendall(b"GET /block HTTP/1.1\r\nhost: t\r\n\r\n")
        self.blocked.append(client)

    def more(self):
        if self.size < SIZE + 1:
            self.size += 1
            self._resize(signal.SIGTTIN)

    def fewer(self):
        if self.size > SIZE - 1:
            self.size -= 1
            self._resize(signal.SIGTTOU)

    def _resize(self, number):
        self.app.signal(number)
        self.app.wait_status(lambda s: s["size"] == self.size, 60)

    def storm(self):
        """Twenty of them in a moment; as many HUPs become two rolls at most."""
        for _ in range(10):
            self.app.signal(signal.SIGHUP)
            self.app.signal(signal.SIGUSR1)

    def rest(self):
        time.sleep(self.chance.random() * 2)


def soak(mooring, seconds):
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
    print(f"SOAK_SEED={seed}")
    app = mooring.run(
        "main:app", files={"main.py": SOURCE}, workers=SIZE, ACCESS_LOG=mooring.base / "access",
        MOORING_MAX_REQUESTS=2000, MOORING_TIMEOUT=4, GRACEFUL_TIMEOUT=10,
    )  # fmt: skip
    app.wait_ready(SIZE)
    course = Soak(app, seed)
    held, began, sizes = len(settled(app.pid)), time.monotonic(), []
    with traffic.Traffic(app.port) as load:
        while (passed := time.monotonic() - began) < seconds:
            course.deed()
            time.sleep(course.chance.random() * 0.5)
            sizes.append((passed, resident_mib(app.pid)))
    calm(app, course)  # without traffic, which has workers recycled
    for client in course.blocked:
        client.close()
    exits = {reason: n for reason, n in app.control(path="/stats").json()["exits"].items() if n}
    early = max((mib for passed, mib in sizes if passed < seconds / 4), default=0.0)
    late = resident_mib(app.pid)
    print(
        f"{time.monotonic() - began:.0f} s: {course.did}, exits {exits}, {load.total} requests, failed "
        f"{sum(load.failed.values())}; supervisor {early:.1f} MiB after a quarter, {late:.1f} MiB at the end"
    )
    guilty = course.lost | set(map(int, re.findall(r"blocking (\d+)", app.stdout)))
    assert [each for each in load.failures if each[3] and each[3] not in guilty] == []
    assert {each[2] for each in load.failures} <= {"reset before", "reset amid", "cut", "closed idle"}
    assert late < early + 1.5
    more = 2 * (course.size - SIZE)  # a socket, and a file for the stacks, of each worker
    eventually(
        lambda: len(settled(app.pid)) - held == more, "the descriptors of the workers that are, no more"
    )
    assert sorted(children(app.pid)) == sorted([*app.ready(), *log_writers(app.pid)])
    assert "Z" not in {state(pid) for pid in children(app.pid)}
    assert set(exits) <= {"drained", "recycled", "signal", "heartbeat_deadline", "grace_deadline"}
    assert "[CRITICAL]" not in app.stderr
    assert app.stop() == 0
    assert app.leftovers == []


def calm(app, course):
    """Size as planned, all ready, no roll owed."""

    def settled():
        status = app.status()
        ready = [each for each in status["workers"] if each["state"] == "ready"]
        whole = len(ready) == len(status["workers"]) == status["size"] == course.size
        return whole and status["state"] == "serving"

    eventually(settled, "calm", timeout=180)


@pytest.mark.timeout(400)
def test_a_short_soak(mooring):
    soak(mooring, 20)


@pytest.mark.longrun
@pytest.mark.timeout(1800)
def test_a_soak(mooring):
    soak(mooring, float(os.environ.get("SOAK_SECONDS", "300")))
