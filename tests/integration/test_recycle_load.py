"""Recycling by requests at full load, strictly: nothing is lost, however often."""

from __future__ import annotations

import re

import pytest
import traffic
from harness import eventually

KINDS = {
    "uvicorn": (traffic.APP, {"MOORING_ENGINE": "uvicorn"}),
    "granian-asgi": (traffic.APP, {"MOORING_ENGINE": "granian"}),
    "granian-wsgi": (traffic.WSGI_APP, {"MOORING_ENGINE": "granian"}),
    "hypercorn": (traffic.APP, {"MOORING_ENGINE": "hypercorn"}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def recycle(mooring, kind, count):
    source, environ = KINDS[kind]
    app = mooring.run(
        "main:app", files={"main.py": source}, workers=2, ACCESS_LOG="", MOORING_MAX_REQUESTS=30,
        MOORING_MAX_REQUESTS_JITTER=10, **environ,
    )  # fmt: skip
    seen = []

    def enough():
        workers = app.status()["workers"]
        seen.append((sum(each["state"] == "ready" for each in workers), len(workers)))
        return app.control(path="/stats").json()["exits"]["recycled"] >= count

    with traffic.Traffic(app.port, websockets=int(source is traffic.APP)) as load:
        eventually(enough, f"{count} recycles", timeout=60 + 6 * count)
    seconds = load.found["seconds"]
    print(f"{kind}: {count} recycles in {seconds:.0f} s, {load.total} requests, failed: {load.failed}")
    assert load.failed == {}, load.found["first"]
    assert load.found["announced"] >= count * 4  # the load was there in each of them
    assert min(ready for ready, _ in seen) >= 2  # never below the size
    assert max(total for _, total in seen) <= 3  # never two at once
    stats = app.control(path="/stats").json()
    assert {reason for reason, number in stats["exits"].items() if number} == {"recycled"}
    assert set(re.findall(r"recycling worker (\d+): \d+ requests", app.stderr)) == {"0", "1"}
    assert app.stop() == 0
    assert "Traceback" not in app.stderr


@pytest.mark.timeout(300)
def test_twenty_recycles_at_full_load_lose_nothing(mooring, kind):
    recycle(mooring, kind, 20)


@pytest.mark.longrun
@pytest.mark.timeout(1500)
def test_two_hundred_recycles_at_full_load_lose_nothing(mooring, kind):
    recycle(mooring, kind, 200)


GUNICORN = {
    "uvicorn-worker": (traffic.APP, {}),
    "gthread": (traffic.WSGI_APP, {"GUNICORN_CMD_ARGS": "-k gthread --threads 16"}),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", GUNICORN)
def test_gunicorn_s_own_recycling_loses_nothing_either(mooring, name):
    """Its arbiter replaces a worker when that has gone: the size is one less for so long."""
    source, environ = GUNICORN[name]
    app = mooring.run(
        "main:app", files={"main.py": source}, workers=2, ACCESS_LOG="", MOORING_ENGINE="gunicorn",
        MOORING_MAX_REQUESTS=500, **environ,
    )  # fmt: skip
    with traffic.Traffic(app.port, websockets=int(source is traffic.APP)) as load:
        app.wait_log("Booting worker", count=2 + 10, timeout=200)
    print(f"{name}: 10 recycles, {load.total} requests, failed: {load.failed}")
    assert load.failed == {}, load.found["first"]
    assert app.stop() == 0
