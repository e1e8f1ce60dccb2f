"""architecture.md, "Processes, memory and rights": what supervisor and workers are, hold, leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

import pytest
from harness import ASGI_APP, WSGI_APP, eventually, free_port, pids_marked
from processes import children, descriptors, log_writers, mapped, resident_mib, settled, state, threads

ROOT = os.geteuid() == 0


def test_the_supervisor_is_small_single_threaded_and_holds_no_engine_and_no_application(mooring):
    app = mooring.run(workers=2)
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    assert threads(app.pid) == 1
    assert resident_mib(app.pid) < 25
    heavy = ("uvloop", "httptools", "granian", "_ssl", "ctypes", "_asyncio")
    assert [name for name in mapped(app.pid) if any(part in name for part in heavy)] == []
    assert any("uvloop" in name for name in mapped(app.ready()[0]))  # that this test can see it


def test_the_same_for_wsgi(mooring):
    app = mooring.run(workers=2, files={"main.py": WSGI_APP})
    assert threads(app.pid) == 1
    assert resident_mib(app.pid) < 25
    assert not any("granian" in name for name in mapped(app.pid))


def test_a_worker_has_its_standard_streams_its_listener_two_pipes_the_log_and_its_engines(mooring):
    app = mooring.run(workers=2)
    supervisors, pids = descriptors(app.pid), app.ready()
    for pid, sibling in zip(pids, reversed(pids), strict=True):
        held = descriptors(pid)
        assert [held[fd] for fd in (0, 1, 2)] == [supervisors[fd] for fd in (0, 1, 2)]
        others = {*supervisors.values(), *descriptors(sibling).values()}
        shared = [what for fd, what in held.items() if fd > 2 and "[" in what and "anon_inode" not in what]
        shared = [what for what in shared if what in others]
        log = [what for what in shared if what == held[2]]  # a description of its own of what 2 is
        listener = [what for what in shared if what.startswith("socket:")]
        pipes = [what for what in shared if what.startswith("pipe:") and what != held[2]]
        assert (len(log), len(listener), len(pipes)) == (1, 1, 1), held  # its lifeline
        # with the scoreboard, the rings, a mapping of each, and what replaces the listener
        assert len(held) <= 24, held


def test_workers_do_not_hold_each_others_pipes(mooring):
    app = mooring.run(workers=3)
    pipes = [
        {what for fd, what in descriptors(pid).items() if fd > 2 and what.startswith("pipe:")}
        for pid in app.ready()
    ]
    lifeline = set.intersection(*pipes) - {descriptors(app.pid)[2]}  # they read it, and never write
    assert len(lifeline) == 1
    shared = {descriptors(app.pid)[2], *lifeline}
    for index, mine in enumerate(pipes):
        for other in pipes[index + 1 :]:
            assert mine & other <= shared


def test_each_worker_leads_its_own_process_group(mooring):
    app = mooring.run(workers=2)
    for pid in app.ready():
        assert os.getpgid(pid) == pid


def test_fifty_deaths_leak_no_descriptor_and_no_zombie(mooring):
    app = mooring.run(workers=4)
    before = settled(app.pid)
    deaths = 0
    while deaths < 50:
        pids = app.ready()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        deaths += len(pids)
        for pid in pids:
            eventually(lambda pid=pid: state(pid) == "", f"the reaping of {pid}")
        app.signal(signal.SIGHUP)  # a roll forgets the backoff
        app.wait_status(
            lambda s: s["state"] == "serving" and all(w["state"] == "ready" for w in s["workers"])
        )
    app.wait_ready(4)
    assert len(settled(app.pid)) == len(before)
    assert sorted(children(app.pid)) == sorted([*app.ready(), *log_writers(app.pid)])
    assert len(log_writers(app.pid)) == 1
    assert resident_mib(app.pid) < 25


def test_when_the_supervisor_is_killed_the_workers_go_and_the_port_is_free(mooring):
    port = free_port()
    app = mooring.run(workers=3, PORT=port)
    pids = app.ready()
    os.kill(app.pid, signal.SIGKILL)
    app.process.wait()
    eventually(lambda: not any(state(pid) for pid in pids), "the workers' end")
    again = mooring.run(workers=1, PORT=port)  # the stale control socket is no obstacle either
    assert again.get("/").text == "hello"
    assert again.stop() == 0


def test_an_idle_fleet_uses_no_cpu(mooring):
    app = mooring.run(workers=2)

    def ticks():
        with open(f"/proc/{app.pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])

    before = ticks()
    time.sleep(2)  # what is measured is that nothing happens
    assert ticks() - before <= 2


ORPHANS = """
import os, subprocess, sys
# the shell ends at once, its child becomes an orphan: of process 1, or of the subreaper
subprocess.run(["sh", "-c", "sleep 0.2 & echo orphan $!"], stdout=sys.stderr)
"""


@pytest.mark.skipif(not ROOT or not shutil.which("unshare"), reason="needs root and unshare(1)")
def test_as_process_1_it_reaps_orphans_and_stops_on_term(mooring):
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    app = mooring.start("run", files={"main.py": ORPHANS + ASGI_APP}, prefix=prefix, WEB_CONCURRENCY=2)
    app.wait_log("orphan", count=2)
    app.wait_log("worker 1 is ready")
    supervisor = children(app.pid)[0]
    assert app.status()["pid"] == 1
    eventually(lambda: len(children(supervisor)) == 3, "the orphans' reaping")  # the log writer is the third
    assert "Z" not in {state(pid) for pid in children(supervisor)}
    assert app.get("/").text == "hello"
    os.kill(supervisor, signal.SIGTERM)
    assert app.wait_exit() == 0


def test_as_subreaper_it_reaps_orphans(mooring):
    wrapper = (
        "import ctypes, os, sys\n"
        "assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    app = mooring.start("run", files={"main.py": ORPHANS + ASGI_APP}, prefix=[sys.executable, "-c", wrapper])
    app.wait_log("] serving")
    eventually(lambda: len(children(app.pid)) == len(app.status()["workers"]) + 1, "the orphans' reaping")
    assert len(log_writers(app.pid)) == 1
    assert app.stop() == 0


def test_a_fork_that_is_refused_does_not_end_the_supervisor(mooring):
    """RLIMIT_NPROC does not bind root, so a limit on descriptors it is: no pipe, no worker."""
    app = mooring.run(workers=1)
    soft = len(descriptors(app.pid))
    import resource

    resource.prlimit(app.pid, resource.RLIMIT_NOFILE, (soft, 4096))
    try:
        app.signal(signal.SIGTTIN)
        app.wait_log("could not be spawned: Too many open files")
        assert app.get("/").text == "hello"
    finally:
        resource.prlimit(app.pid, resource.RLIMIT_NOFILE, (4096, 4096))
    app.wait_ready(2)


def test_started_without_standard_descriptors_no_listener_takes_their_place(mooring):
    close = "import os, sys\nfor fd in (0, 1, 2): os.close(fd)\nos.execvp(sys.argv[1], sys.argv[1:])\n"
    port = free_port()
    app = mooring.start("run", files={"main.py": ASGI_APP}, prefix=[sys.executable, "-c", close], PORT=port)
    app.wait_status(lambda s: s["state"] == "serving")
    assert [descriptors(app.pid)[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3
    assert [descriptors(app.ready()[0])[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3
    assert app.stop() == 0


def test_very_early_signals_end_it_and_leave_nothing(mooring):
    codes = set()
    for _ in range(12):
        app = mooring.start("run", files={"main.py": ASGI_APP})
        eventually(lambda app=app: pids_marked(app.mark), "its exec")
        app.signal(signal.SIGTERM)
        codes.add(app.wait_exit())
        assert app.leftovers == []
        assert "Traceback" not in app.stderr
    assert codes <= {0, -signal.SIGTERM}


def test_very_early_ints_show_no_traceback(mooring):
    for delay in (0.05, 0.1, 0.2, 0.3, 0.5):
        app = mooring.start("run", files={"main.py": ASGI_APP})
        time.sleep(delay)  # anywhere in the start: there is nothing to wait for
        app.signal(signal.SIGINT)
        assert app.wait_exit() in {0, -signal.SIGINT}
        assert app.leftovers == []
        assert "mooring/cli.py" not in app.stderr
