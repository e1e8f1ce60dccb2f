"""The same supervision on every engine: boot, crash, roll, resize, rotation, stop, a killed supervisor."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from harness import ASGI_APP, WSGI_APP, eventually, pids_marked

SERVED = {
    "uvicorn": ({"MOORING_ENGINE": "uvicorn"}, ASGI_APP),
    "granian-asgi": ({"MOORING_ENGINE": "granian"}, ASGI_APP),
    "granian-wsgi": ({"MOORING_ENGINE": "granian"}, WSGI_APP),
    "hypercorn": ({"MOORING_ENGINE": "hypercorn"}, ASGI_APP),
    "hypercorn-trio": ({"MOORING_ENGINE": "hypercorn", "WORKER_CLASS": "trio"}, WSGI_APP),
    "gunicorn-gthread": ({"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "gthread"}, WSGI_APP),
    "gunicorn-asgi": ({"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "asgi"}, ASGI_APP),
}


@pytest.fixture(params=SERVED)
def started(mooring, request):
    environ, source = SERVED[request.param]
    (mooring.folder / "main.py").write_text(source)
    return lambda **more: mooring.run(workers=2, **environ, **more)


def served_by(app) -> set[str]:
    """The pids that answer."""
    return {app.get("/pid").text for _ in range(20)}


def test_boot_and_stop(started):
    app = started()
    assert app.get("/").text == "hello"
    app.signal(signal.SIGTERM)
    assert app.wait_exit() == 0
    assert app.leftovers == []
    assert "Traceback" not in app.stderr


def test_a_killed_worker_is_replaced(started):
    app = started()
    (victim, *_) = served_by(app)
    os.kill(int(victim), signal.SIGKILL)
    eventually(lambda: app.get("/").text == "hello" and victim not in served_by(app), "its replacement")
    assert app.stop() == 0
    assert app.leftovers == []


def test_a_roll_replaces_all(started):
    app = started()
    before = served_by(app)
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    eventually(lambda: not served_by(app) & before, "the new generation alone")
    assert app.stop() == 0
    assert app.leftovers == []


def test_sizes_change(started):
    app = started()
    count = 5 if app.status()["engine"] == "gunicorn" else 4  # supervisor, log writer, arbiter
    eventually(lambda: len(pids_marked(app.mark)) == count, "all workers")
    app.signal(signal.SIGTTIN)
    eventually(lambda: len(pids_marked(app.mark)) == count + 1, "one more")
    app.signal(signal.SIGTTOU)
    eventually(lambda: len(pids_marked(app.mark)) == count, "one fewer")
    assert app.get("/").text == "hello"
    assert app.stop() == 0


@pytest.mark.parametrize("name", ["gunicorn-gthread", "gunicorn-asgi"])
def test_gunicorn_starts_as_many_workers_as_are_tuned(mooring, name):
    environ, source = SERVED[name]
    app = mooring.run(files={"main.py": source}, MOORING_CPU_COUNT=6, **environ)
    eventually(lambda: len(pids_marked(app.mark)) == 3 + 6, "supervisor, log writer, arbiter, all workers")
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    eventually(lambda: len(pids_marked(app.mark)) == 3 + 6, "the second arbiter with all workers")
    assert app.stop() == 0


def test_the_command_line_wins_over_gunicorns_file(mooring):
    conf = "worker_class, workers, bind, loglevel = 'sync', 3, '127.0.0.1:1', 'critical'\n"
    given = ("--worker-class", "gthread", "--workers", "1", "--port", "0", "--log-level", "info")
    files = {"main.py": WSGI_APP, "conf.py": conf}
    app = mooring.run(*given, files=files, GUNICORN_CONF="conf.py")
    assert app.get("/").text == "hello"
    app.wait_log("Using worker: gthread")
    assert len(pids_marked(app.mark)) == 4  # supervisor, log writer, arbiter, worker
    assert app.stop() == 0


def test_a_hangup_that_reaches_gunicorns_arbiter_changes_nothing(mooring):
    environ, source = SERVED["gunicorn-gthread"]
    app = mooring.run(files={"main.py": source}, workers=2, **environ)
    before = eventually(lambda: len(found := pids_marked(app.mark)) == 5 and found, "all workers")
    (arbiter,) = {row["arbiter_pid"] for row in app.status()["workers"]}
    os.kill(arbiter, signal.SIGHUP)
    app.wait_log("HUP is ignored here")
    assert pids_marked(app.mark) == before
    assert app.stop() == 0


def test_log_files_are_reopened(started, mooring):
    access = mooring.base / "access"
    app = started(ACCESS_LOG=access)
    app.get("/first")
    eventually(lambda: "GET /first" in access.read_text(), "the first line")
    pids = pids_marked(app.mark)
    access.rename(mooring.base / "access.1")
    app.signal(signal.SIGUSR1)
    app.wait_log("log files are open anew")

    def nobody_holds_the_old_one():
        held = []
        for link in (f"/proc/{pid}/fd/{fd}" for pid in pids for fd in os.listdir(f"/proc/{pid}/fd")):
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                held.append(os.readlink(link))
        return str(mooring.base / "access.1") not in held

    eventually(nobody_holds_the_old_one, "the reopening by all")
    app.get("/second")
    eventually(lambda: "GET /second" in access.read_text(), "the second line")
    assert pids_marked(app.mark) == pids
    assert app.stop() == 0


def test_a_killed_supervisor_leaves_nobody(started):
    app = started()
    app.process.kill()
    app.process.wait()
    eventually(lambda: pids_marked(app.mark) == [], "the workers' end")


@pytest.mark.parametrize("name", SERVED)
def test_boot_failures_end_with_3_and_leave_nothing(mooring, name):
    app = mooring.start("run", files={"main.py": "1/0\n"}, WEB_CONCURRENCY=2, **SERVED[name][0])
    assert app.wait_exit() == 3
    assert app.last_line.startswith("mooring: ")
    assert "ZeroDivisionError" in app.last_line
    assert app.leftovers == []


@pytest.mark.parametrize("source", [WSGI_APP, ASGI_APP])
def test_with_gunicorns_preload_each_worker_counts_for_itself(mooring, source):
    app = mooring.run(files={"main.py": source}, workers=2, GUNICORN_CMD_ARGS="--preload")
    for _ in range(20):
        app.get("/")
    found = app.wait_status(lambda s: sum(row["requests"] for row in s["workers"]) == 20)["workers"]
    assert len({row["pid"] for row in found}) == 2
    eventually(lambda: app.stdout.count('"GET / HTTP/1.1" 200') == 20, "the log's lines")
