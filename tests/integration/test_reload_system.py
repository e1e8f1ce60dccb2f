"""Live reload and the system: what it costs while idle, no inotify, what the older images' users see."""

from __future__ import annotations

import os
import pty
import re
import selectors
import sys
import time
from pathlib import Path

import pytest
from harness import WSGI_APP, eventually, pids_marked
from live import WATCHING, code, dev, reloads, wait_version

IDLE = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


def ticks(app) -> int:
    """What supervisor, log writer, watcher and worker have used so far: utime and stime, proc(5)."""
    total = 0
    for pid in pids_marked(app.mark):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def test_idle_costs_less_than_one_percent_of_a_core(mooring):
    """Of CPU time, not of the clock: other processes don't count. Three at once, with 2,000 files each."""
    files = {f"package{n % 100}/module{n}.py": f"x = {n}\n" for n in range(2000)}
    files |= {"main.py": code(1), "wsgi.py": WSGI_APP}
    apps = {
        "notified": dev(mooring, "main:app", files=files, MOORING_RELOAD_POLLING="off"),
        "polling": dev(mooring, "main:app", files={}, MOORING_RELOAD_POLLING="on"),
        "granian": dev(mooring, "wsgi:app", files={}, MOORING_RELOAD_POLLING="off"),
    }
    for app in apps.values():
        assert "2002 files" in app.wait_log(WATCHING)
        assert len(pids_marked(app.mark)) == 4  # supervisor, log writer, worker, watcher
        app.get("/")
    before = {name: ticks(app) for name, app in apps.items()}
    start = time.monotonic()
    selectors.DefaultSelector().select(IDLE)
    seconds = time.monotonic() - start
    used = {name: (ticks(app) - before[name]) / TICKS / seconds for name, app in apps.items()}
    print({name: f"{share:.2%}" for name, share in used.items()})
    assert max(used.values()) < 0.01, used
    for app in apps.values():
        assert reloads(app) == []


LIMITS = {
    "instances": "echo 0 > /proc/sys/user/max_inotify_instances",
    "watches": "echo 1 > /proc/sys/user/max_inotify_watches",
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_without_inotify_it_polls_and_says_so_once(mooring, limit):
    """The limits of a user namespace of its own: nobody else's watchers suffer."""
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", f'{limit} && exec "$0" "$@"']
    app = dev(mooring, files={"main.py": code(1), "pkg/x.py": ""}, prefix=prefix)
    assert "polling: the system cannot notify" in app.wait_log(WATCHING)
    for version in (2, 3):
        app.write("main.py", code(version))
        wait_version(app, version)
    assert app.stderr.count("WARNING") == 1
    assert "fs.inotify" in app.stderr


def test_limits_that_are_reached_later(mooring):
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    prefix += ['echo 20 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"']
    app = dev(mooring, prefix=prefix)
    for number in range(30):
        app.write(f"pkg{number}/x.py", "")
    app.wait_log("polling: the system cannot notify")
    app.wait_log("Worker reloading: ")
    told = re.compile(r"Worker reloading: \S+ modified(?: \(and (\d+) more\))?")
    # in how many bursts is the machine's affair, and a file may be in two: new, and then written
    eventually(lambda: sum(1 + int(m or 0) for m in told.findall(app.stderr)) >= 30, "all 30 files")
    app.write("pkg29/x.py", "x = 1")
    eventually(lambda: reloads(app)[-1] == "pkg29/x.py", "the last one")
    assert app.stderr.count("WARNING") == 1


def test_polling_off_without_inotify_serves_without_live_reload(mooring):
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", f'{LIMITS["instances"]} && exec "$0" "$@"']
    app = mooring.start("dev", files={"main.py": code(1)}, prefix=prefix, MOORING_RELOAD_POLLING="off")
    app.wait_log("live reload is off: ")
    wait_version(app, 1)
    assert app.stop() == 0


def test_an_older_image_with_uvicorn(mooring):
    more = {"MOORING_PROFILE": "conda-starlette", "MOORING_APP_ROOT": mooring.folder, "HOST": "127.0.0.1"}
    app = mooring.start("run", files={"main.py": code(1)}, RELOAD="yes", BIND="127.0.0.1:1", **more)
    app.wait_log(f"Uvicorn running on http://127.0.0.1:{app.port} ")
    app.write("main.py", code(2))
    app.wait_log(f"Worker reloading: {app.folder}/main.py modified")
    wait_version(app, 2)
    assert app.stop(timeout=10) == 0


def test_an_older_image_with_hypercorn(mooring):
    more = {"MOORING_PROFILE": "hypercorn", "MOORING_APP_ROOT": mooring.folder, "HOST": "127.0.0.1"}
    app = mooring.start("run", files={"main.py": code(1)}, RELOAD="1", **more)
    app.wait_log(f"Running on http://127.0.0.1:{app.port} ")
    app.write("main.py", code(2))
    wait_version(app, 2)
    assert '"GET ' not in app.stdout + app.stderr
    assert app.stop(timeout=10) == 0


@pytest.mark.parametrize(("name", "text"), [("RELOAD", "False"), ("WITH_RELOAD", "false"), ("RELOAD", "")])
def test_switched_off(mooring, name, text):
    app = mooring.run(**{name: text})
    assert app.status()["plan"]["reload"]["value"] is False
    assert len(pids_marked(app.mark)) > 1
    assert WATCHING not in app.stderr


def test_the_log_of_a_save_is_short(mooring):
    app = dev(mooring)
    app.write("main.py", code(2))
    app.wait_log("rolled: generation 2 serves")
    app.write("main.py", "def broken(:\n")
    app.wait_log("waiting for the next save")
    said = [line.partition("] [INFO] ")[2] or line for line in app.stderr.splitlines()]
    reload = said.index(f"Worker reloading: {app.folder}/main.py modified")
    assert said[reload + 1].startswith("worker 0 is ready after ")
    assert said[reload + 2] == "rolled: generation 2 serves"
    assert said[reload + 3] == said[reload]
    assert said[reload + 4] == f'  File "{app.folder}/main.py", line 1'
    assert said[reload + 7].startswith("SyntaxError: ")
    assert "cannot import main: SyntaxError" in said[reload + 8]
    assert len(said) == reload + 9


def test_mooring_reload_tells_what_became_of_it(mooring):
    app = mooring.start("dev", files={"main.py": "def broken(:\n"}, MOORING_RELOAD_POLLING="off")
    app.wait_log("waiting for the next save")
    failed = mooring.start("reload", PORT=None)
    assert failed.wait_exit() == 1
    assert "SyntaxError" in failed.last_line
    assert "keeps serving" not in failed.last_line
    app.write("main.py", code(2))
    wait_version(app, 2)
    assert mooring.start("reload", PORT=None).wait_exit() == 0


TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
STOPPING = code(1).replace(
    "\n    query", '\n    if scope["path"] == "/pid":\n        breakpoint()\n    query'
)


def ask(app):
    asking = app.connect()
    asking.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    return asking


def test_a_breakpoint_can_be_used(mooring):
    """On a terminal; and one that is left open holds neither a reload nor a stop."""
    master, slave = pty.openpty()
    prefix = [sys.executable, "-c", TERMINAL]
    app = dev(mooring, files={"main.py": STOPPING}, prefix=prefix, options={"stdin": slave})
    os.close(slave)
    with ask(app) as asking:
        app.wait_log("-> ")
        os.write(master, b"print('answer', 6 * 7)\n")
        app.wait_log("answer 42")
        os.write(master, b"c\n")
        assert asking.recv(65536).startswith(b"HTTP/1.1 200")
    with ask(app):
        app.wait_log("-> ", count=2)
        app.write("main.py", STOPPING.replace('"1"', '"2"'))
        wait_version(app, 2)
    with ask(app):
        app.wait_log("-> ", count=3)
        os.write(master, b"\x03")  # Ctrl-C
        assert app.wait_exit(timeout=10) == 0
    assert app.leftovers == []
    os.close(master)
