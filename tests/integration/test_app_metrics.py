"""The application's own metrics with real processes: the supervisor's side, its helper, workers.

Each scenario of app_metrics_stage.py is a program: prometheus_client looks at its variable when imported.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from app_metrics_stage import samples
from harness import ASGI_APP, Mooring
from processes import children

STAGE = Path(__file__).with_name("app_metrics_stage.py")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "scenario", ["modes", "thousand", "killed", "hung", "idle", "crowd", "refused", "light", "user"]
)
def test_scenario(scenario):
    done = subprocess.run(
        [sys.executable, str(STAGE), scenario], capture_output=True, text=True, timeout=280, check=False
    )
    if "skip:" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr


# -- through mooring ---------------------------------------------------------------------------------------

APP = """
import os
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
JOBS = Counter("jobs", "Jobs.", ["queue"])
SECONDS = Histogram("job_seconds", "Time.", buckets=[1, 2.5])
LEVEL = Gauge("level", "Level.", multiprocess_mode="livesum")
ONCE = Gauge("imported", "Processes that have imported this.", multiprocess_mode="sum")
ONCE.set(1)
LEVEL.set(1)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/own":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        JOBS.labels("fast").inc()
        SECONDS.observe(2)
        body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


RECORDED = [("jobs_total", "queue=fast"), ("level",), ("imported",)]


def page(app: Mooring) -> dict:
    return samples(app.control("GET", "/metrics").body)


@pytest.mark.parametrize("engine", ["uvicorn", "granian", "hypercorn", "gunicorn"])
def test_what_all_workers_have_recorded_is_on_the_page_over_kills_and_rolls(mooring, engine):
    app = mooring.run(workers=2, files={"main.py": APP}, MOORING_ENGINE=engine)
    app.wait_ready(2)
    for _ in range(30):
        app.get("/")
    found = page(app)
    assert found["jobs_total", "queue=fast"] == 30
    assert [found["job_seconds_bucket", f"le={le}"] for le in ("1.0", "2.5", "+Inf")] == [0, 30, 30]
    assert (found["level",], found["imported",], found["mooring_app_metrics_up",]) == (2, 2, 1)
    victim = int(app.get("/").text)
    os.kill(victim, signal.SIGKILL)
    before = app.wait_ready(2, without=[victim])
    found = page(app)
    assert [found[name] for name in RECORDED] == [31, 2, 3]
    app.signal(signal.SIGHUP)
    app.wait_ready(2, without=before)
    found = page(app)
    assert [found[name] for name in RECORDED] == [31, 2, 5]
    own = samples(app.get("/own").body)
    assert {key: found[key] for key in own} == own
    folder = next(mooring.runtime.rglob("metrics"), None)
    assert app.stop() == 0
    assert folder is None or not folder.exists()


WHOLE = """
import os
from prometheus_client import Counter, Gauge, Info, generate_latest
Info("shop", "Which.").info({"version": "1"})
Gauge("queue", "Length.").set_function(lambda: 7)
JOBS = Counter("jobs", "Jobs.")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    JOBS.inc()
    body = generate_latest() if "PROMETHEUS_MULTIPROC_DIR" not in os.environ else b"several"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("engine", ["uvicorn", "gunicorn"])
def test_one_worker_keeps_its_own_page_whole_and_mooring_the_totals(mooring, engine):
    app = mooring.run(workers=1, files={"main.py": WHOLE}, MOORING_ENGINE=engine)
    before = app.wait_ready(1)
    own = samples(app.get("/").body)
    assert (own["shop_info", "version=1"], own["queue",], own["jobs_total",]) == (1, 7, 1)
    assert own["process_resident_memory_bytes",] > 0
    app.signal(signal.SIGHUP)
    app.wait_ready(1, without=before)
    assert samples(app.get("/").body)["jobs_total",] == 1
    assert page(app)["jobs_total",] == 2


def test_a_worker_that_is_added_later_joins_the_others(mooring):
    app = mooring.run(workers=1, files={"main.py": WHOLE})
    first = app.wait_ready(1)
    app.signal(signal.SIGTTIN)
    app.wait_ready(2)
    os.kill(first[0], signal.SIGSTOP)
    assert app.get("/").text == "several"
    os.kill(first[0], signal.SIGCONT)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_whole_page(mooring):
    app = mooring.run(workers=2, files={"main.py": APP})
    app.get("/")
    text = app.control("GET", "/metrics").body
    assert b"jobs_total" in text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert b"error while linting" not in done.stderr, done.stderr


def test_an_application_without_any_costs_no_process(mooring):
    app = mooring.run(workers=1, files={"main.py": ASGI_APP})
    before = children(app.pid)
    assert ("mooring_app_metrics_up",) not in page(app)
    assert children(app.pid) == before


def test_switched_off_the_application_is_as_without_mooring(mooring):
    code = APP + "\nassert 'PROMETHEUS_MULTIPROC_DIR' not in os.environ\n"
    app = mooring.run(workers=1, files={"main.py": code}, MOORING_APP_METRICS="false")
    app.get("/")
    assert not [key for key in page(app) if not key[0].startswith("mooring_")]
    assert ("mooring_app_metrics_up",) not in page(app)


def test_a_folder_that_the_user_names_keeps_its_totals_over_restarts(mooring):
    for turn in (1, 2):
        app = mooring.run(
            workers=1, files={"main.py": APP}, PROMETHEUS_MULTIPROC_DIR=str(mooring.base / "kept")
        )
        app.get("/")
        assert page(app)["jobs_total", "queue=fast"] == turn
        assert page(app)["level",] == 1
        app.stop()
    assert list((mooring.base / "kept").glob("counter_*.db"))
