"""Recycling: by requests, age and memory; the replacement first, never two at once, nothing uncounted."""

from __future__ import annotations

import contextlib
import re

import pytest
from harness import ASGI_APP, WSGI_APP, eventually
from load import Load

LEAKING = ASGI_APP.replace(
    'case "/":',
    'case "/leak":\n            KEPT.append(os.urandom(1 << 20) * 40)\n        case "/":',
).replace('VERSION = "1"', 'VERSION = "1"\nKEPT = []')


def recycled(status):
    return [each for each in status["last_exits"] if each["kind"] == "recycled"]


def lines(app):
    return re.findall(r"recycling worker (\d+): (\d+) requests", app.stderr)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("application", [ASGI_APP, WSGI_APP], ids=["asgi", "wsgi"])
def test_by_requests_under_load(mooring, application):
    recycles = 20
    app = mooring.run(
        workers=2, files={"main.py": application}, MOORING_MAX_REQUESTS=30, MOORING_MAX_REQUESTS_JITTER=10
    )
    seen = []
    with Load(app) as load:

        def enough():
            workers = app.status()["workers"]
            seen.append((sum(w["state"] == "ready" for w in workers), len(workers)))
            return len(lines(app)) >= recycles

        eventually(enough, f"{recycles} recycles", timeout=30 + 6 * recycles)
    assert min(ready for ready, _ in seen) >= 2  # never below the size
    assert max(total for _, total in seen) <= 3  # never two at once
    assert load.failed == []
    assert {slot for slot, _ in lines(app)} == {"0", "1"}
    assert all(int(count) >= 30 for _, count in lines(app))
    app.wait_ready(2)
    status = app.status()
    assert recycled(status)
    assert not any(each["failed"] for each in status["last_exits"])
    stats = app.control(path="/stats").json()
    assert stats["exits"]["recycled"] >= recycles - 1
    assert stats["totals"]["requests"] == load.answers.count("hello")
    assert stats["totals"]["restarts"] == 0
    assert app.stop() == 0


def test_by_age(mooring):
    app = mooring.run(workers=2, MOORING_MAX_WORKER_AGE=2)
    before = app.ready()
    assert re.search(r"recycling worker \d: 2 s old", app.wait_log("s old"))
    app.wait_log("s old", count=2)
    app.wait_status(lambda s: not {row["pid"] for row in s["workers"]} & set(before))
    assert app.stop() == 0


def test_by_memory_after_three_samples(mooring):
    app = mooring.run(workers=1, files={"main.py": LEAKING}, MOORING_MAX_WORKER_MEMORY="80M")
    (before,) = app.ready()
    for _ in range(3):
        app.get("/leak")
    assert "of memory, more than 80 MiB" in app.wait_log("recycling worker 0: ")
    app.wait_status(recycled)
    assert app.wait_ready(1) != [before]
    assert app.stop() == 0


def test_a_limit_below_what_a_fresh_worker_has_is_said_once(mooring):
    app = mooring.run(workers=1, MOORING_MAX_WORKER_MEMORY="1M")
    line = app.wait_log("MOORING_MAX_WORKER_MEMORY is 1.0 MiB, but a worker that has just started has")
    assert "isn't recycled" in line
    assert "recycling worker" not in app.stderr
    assert app.stop() == 0


def test_gunicorn_recycles_its_own_by_requests_and_says_so(mooring):
    app = mooring.run(
        workers=1, files={"main.py": WSGI_APP}, MOORING_ENGINE="gunicorn", MOORING_MAX_REQUESTS=3,
        MOORING_MAX_WORKER_AGE=1,
    )  # fmt: skip
    app.wait_log("MOORING_MAX_WORKER_AGE and MOORING_MAX_WORKER_MEMORY have no effect", count=1)
    pids = set()

    def two():
        with contextlib.suppress(OSError, ValueError):
            pids.add(app.get("/pid").text)
        return len(pids) > 1

    eventually(two, "another worker of gunicorn's")
    assert "recycling worker" not in app.stderr
    assert app.stop() == 0


@pytest.mark.parametrize("text", ["5X", "101%", "10K"])
def test_a_bad_size(mooring, text):
    app = mooring.start("run", files={"main.py": ASGI_APP}, MOORING_MAX_WORKER_MEMORY=text)
    assert app.wait_exit() == 2
    assert "MOORING_MAX_WORKER_MEMORY" in app.last_line
