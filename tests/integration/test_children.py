"""What a fork and an exec in the application inherit, and how long they live (docs/how-to/children.md)."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
from harness import eventually, pids_marked
from processes import descriptors, field, state
from variants import ALL, APPS, each_variant

APP = APPS / "children"
# Signals 1 to 31: those after them are the C library's own, which who started the tests may ignore.
SIGNALS = (1 << 31) - 1
PYTHONS = {"SIGPIPE", "SIGXFSZ"}  # Python itself ignores them
# Those that end by a TERM, and those that don't; the daemon is one by itself.
KINDS = [
    *("program", "program in its own session", "program in its own group", "program by a shell"),
    *("program by preexec_fn", "stubborn program", "stubborn program in its own session"),
    *(
        "daemonic process",
        "process",
        "process in a thread",
        "spawned process",
        "forkserver's process",
        "fork",
    ),
    *("executor", "busy executor", "pool", "manager"),
]
QUICK = [kind for kind in KINDS if "stubborn" not in kind]
BY_NAME = {str(variant): variant for variant in ALL}


def serve(mooring, variant, **more):
    files = {"unused.txt": ""}
    return mooring.run(
        f"children_{variant.interface}:app", files=files, PYTHONPATH=APP, **{**variant.environ, **more}
    )


def start(app, kinds):
    """Start children; returns their pids by kind."""
    return {kind: app.get("/" + kind.replace(" ", "%20")).json() for kind in kinds}


def runs(pid):
    return state(pid) not in {"", "Z"}


def gone(pids, seconds=30.0):
    """Wait until no process is left."""
    eventually(lambda: not [kind for kind, pid in pids.items() if runs(pid)], f"the end of {pids}", seconds)


@each_variant
def test_a_fork_and_an_exec_have_nothing_of_moorings(mooring, variant):
    app = serve(mooring, variant)
    worker = app.get("/pid").json()
    supervisors = set(descriptors(app.pid).values())
    forked = app.get("/forked").json()
    handlers = forked["handlers"]
    assert {name for name, handler in handlers.items() if handler != "SIG_DFL"} == {"SIGINT", *PYTHONS}
    assert handlers["SIGINT"] == "default_int_handler"
    assert int(forked["SigBlk"], 16) == 0
    assert forked["wakeup"] == -1
    standard = {forked["held"][fd] for fd in "012"}
    held = {each for each in forked["held"].values() if not each.startswith("anon_inode:")} - standard
    assert not held & supervisors
    assert not [each for each in held if each.startswith("/memfd:")]
    assert forked["code"] == -signal.SIGTERM
    executed = app.get("/executed").json()
    assert int(executed["SigIgn"], 16) & SIGNALS == 0
    assert int(executed["SigBlk"], 16) == 0
    assert sorted(executed["held"]) == ["0", "1", "2"]
    assert executed["codes"] == [-signal.SIGINT, -signal.SIGHUP]
    assert app.get("/pid").json() == worker


@pytest.mark.parametrize("name", ["asgi-uvicorn", "wsgi-granian"])
def test_a_preloaded_workers_programs_inherit_no_descriptor(mooring, name):
    app = serve(mooring, BY_NAME[name], MOORING_PRELOAD="warn")
    assert sorted(app.get("/executed").json()["held"]) == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["asgi-uvicorn", "wsgi-granian", "wsgi-gunicorn-gthread"])
def test_a_stop_waits_for_no_child(mooring, name):
    app = serve(mooring, BY_NAME[name])
    pids = start(app, QUICK)
    began = time.monotonic()
    assert app.stop() == 0
    assert time.monotonic() - began < 10  # of the 20 s that it could take
    assert "grace" not in app.stderr
    gone(pids)


@pytest.mark.parametrize("name", ["asgi-hypercorn-trio", "wsgi-gunicorn-gthread"])
@pytest.mark.parametrize("preload", ["off", "warn"])
def test_no_child_outlives_a_worker_that_was_killed(mooring, name, preload):
    if preload == "warn" and "gunicorn" in name:
        name = "wsgi-granian"  # gunicorn preloads by itself
    app = serve(mooring, BY_NAME[name], MOORING_PRELOAD=preload)
    worker = app.get("/pid").json()
    pids = start(app, KINDS)
    seen(app, pids)
    os.kill(worker, signal.SIGKILL)
    gone(pids)
    app.wait_status(lambda status: status["workers"] and status["workers"][0]["state"] == "ready")
    assert app.stop() == 0


def seen(app, pids):
    """Wait until the supervisor has been told of the children in groups of their own.

    The worker tells it, and then ties each to a pipe of which it has one read end already.
    """
    worker = app.get("/pid").json()
    own = sum(os.getpgid(pid) == pid for pid in pids.values())

    def ties():
        held = [each for each in descriptors(worker).values() if each.startswith("pipe:")]
        return max(held.count(each) for each in held) > own

    eventually(ties, "the ties")
    app.status()  # answered by a loop that has read what was written before


@pytest.mark.parametrize(
    ("name", "preload"),
    [("asgi-uvicorn", "warn"), ("wsgi-granian", "off"), ("wsgi-gunicorn-gthread", "off")],
)
def test_no_child_outlives_a_supervisor_that_was_killed(mooring, name, preload):
    app = serve(mooring, BY_NAME[name], MOORING_PRELOAD=preload)
    port = app.port
    pids = start(app, KINDS)
    seen(app, pids)
    os.kill(app.pid, signal.SIGKILL)
    app.process.wait()
    eventually(lambda: not pids_marked(app.mark), f"the end of {pids}")  # the log writer goes last
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_what_a_worker_has_left_ends_when_it_is_recycled_or_rolled(mooring):
    app = serve(mooring, BY_NAME["asgi-uvicorn"])
    pids = start(app, KINDS)
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    gone(pids)
    assert app.stop() == 0


def test_a_daemon_stays_and_holds_no_listener(mooring):
    app = serve(mooring, BY_NAME["asgi-uvicorn"])
    pid = app.get("/daemon").json()
    try:
        port = app.port
        assert app.stop() == 0
        assert runs(pid)
        app.leftovers = []
        with socket.create_server(("127.0.0.1", port)):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not pids_marked(app.mark), "the daemon's end")


def test_signals_for_the_supervisor_end_no_worker(mooring):
    """They have handlers that do nothing, since an executed program would inherit that they are ignored."""
    app = serve(mooring, BY_NAME["asgi-uvicorn"])
    worker = app.get("/pid").json()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1):
        os.kill(worker, number)
        assert app.get("/pid").json() == worker
    pythons = sum(1 << (getattr(signal, name) - 1) for name in PYTHONS)
    assert int(field(worker, "SigIgn"), 16) & SIGNALS & ~pythons == 0
    assert app.stop() == 0
