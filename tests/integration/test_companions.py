"""Run-once companions: real commands beside the workers, through starts, ends, rolls and stops."""

from __future__ import annotations

import os
import signal
import time

from harness import ASGI_APP, eventually, pids_marked
from processes import state

# Says what it is told to, and notes each start; TERM ends it after `linger` seconds, or never.
PROGRAM = """
import os, signal, sys, time
name, linger = sys.argv[1], float(sys.argv[2])
def end(*_):
    if linger >= 0:
        time.sleep(linger)
        open(name, "a").write("ended\\n")
        os._exit(0)
signal.signal(signal.SIGTERM, end)
open(name, "a").write(f"{os.getpid()}\\n")
while True:
    signal.pause()
"""


def _starts(app, name="one"):
    path = app.folder / name
    lines = path.read_text().split() if path.exists() else []
    return [int(line) for line in lines if line.isdigit()]


def _run(mooring, commands, workers=2, **more):
    files = {"main.py": ASGI_APP, "companion.py": PROGRAM}
    return mooring.run(files=files, workers=workers, MOORING_COMPANIONS=commands, **more)


def test_each_runs_once_however_many_workers_there_are_and_ends_with_them(mooring):
    app = _run(mooring, "python companion.py one 0; python companion.py two 0.2", workers=3)
    eventually(lambda: _starts(app, "one") and _starts(app, "two"), "both")
    found = app.status()["companions"]
    assert [each["name"] for each in found] == ["python", "python"]
    assert [each["pid"] for each in found] == [_starts(app, "one")[0], _starts(app, "two")[0]]
    assert app.stop() == 0
    assert len(_starts(app, "one")) == 1
    for name in ("one", "two"):
        assert (app.folder / name).read_text().endswith("ended\n")
    assert app.leftovers == []


def test_one_that_ends_is_started_again_and_each_time_later(mooring):
    app = _run(mooring, "python -c 'raise SystemExit(7)'")
    assert "exit code 7; it is started again in 0.5 s" in app.wait_log("companion python has ended")
    app.wait_log("it is started again in 1 s")
    assert app.get("/").text == "hello"
    assert app.status()["companions"][0]["last_exit"] == "exit code 7"
    assert app.stop() == 0


def test_one_that_is_killed_comes_back(mooring):
    app = _run(mooring, "python companion.py one 0")
    eventually(lambda: _starts(app), "its start")
    os.kill(_starts(app)[0], signal.SIGKILL)
    app.wait_log("companion python has ended: killed by SIGKILL")
    eventually(lambda: len(_starts(app)) == 2, "another start")
    assert app.stop() == 0


FORKS = """
import os, time
told, tell = os.pipe()
if os.fork() == 0:
    open("children", "a").write(f"{os.getpid()}\\n")
    os.write(tell, b".")
    while True:
        time.sleep(1)
os.read(told, 1)
os._exit(3)
"""


def test_what_one_leaves_behind_ends_with_it(mooring):
    """Else there would be ever more of what is to run once."""
    files = {"main.py": ASGI_APP, "forks.py": FORKS}
    app = mooring.run(files=files, workers=1, MOORING_COMPANIONS="python forks.py")
    app.wait_log("it is started again in 1 s")
    first, *_ = eventually(lambda: _starts(app, "children"), "its child")
    eventually(lambda: state(first) in {"", "Z"}, "the child's end")
    assert app.stop() == 0
    assert app.leftovers == []


def test_a_roll_starts_them_anew(mooring):
    app = _run(mooring, "python companion.py one 0")
    eventually(lambda: _starts(app), "its start")
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    eventually(lambda: len(_starts(app)) == 2, "another start")
    assert (app.folder / "one").read_text().split()[1] == "ended"  # never two at once
    assert app.stop() == 0


def test_one_that_does_not_leave_is_killed_at_the_grace_period(mooring):
    app = _run(mooring, "python companion.py one -1", MOORING_GRACEFUL_TIMEOUT="1")
    eventually(lambda: _starts(app), "its start")
    began = time.monotonic()
    assert app.stop() == 0
    assert 0.9 < time.monotonic() - began < 10
    assert app.leftovers == []


def test_a_second_int_waits_for_none(mooring):
    app = _run(mooring, "python companion.py one -1", MOORING_GRACEFUL_TIMEOUT="60")
    eventually(lambda: _starts(app), "its start")
    app.signal(signal.SIGINT)
    app.wait_log("stopping")
    app.signal(signal.SIGINT)
    app.wait_exit()
    assert app.leftovers == []


def test_they_do_not_outlive_a_killed_supervisor(mooring):
    app = _run(mooring, "python companion.py one 0")
    eventually(lambda: _starts(app), "its start")
    app.signal(signal.SIGKILL)
    eventually(lambda: not pids_marked(app.mark), "the end of all")


def test_none_starts_where_the_application_does_not_boot(mooring):
    app = mooring.start(
        "run",
        files={"main.py": "raise RuntimeError('no')\n", "companion.py": PROGRAM},
        MOORING_COMPANIONS="python companion.py one 0",
    )
    assert app.wait_exit() == 3
    assert _starts(app) == []


def test_their_arguments_are_nobodys_business(mooring):
    app = _run(mooring, "python companion.py one 0 --password=marker1234")
    eventually(lambda: _starts(app), "its start")
    for path in ("/status", "/stats", "/metrics"):
        assert "marker1234" not in app.control("GET", path).text


def test_a_command_that_is_not_there_is_told_of(mooring):
    app = _run(mooring, "no-such-command --now")
    app.wait_log("companion no-such-command has ended: exit code 127")
    assert "mooring: companion no-such-command: No such file or directory" in app.stderr


def test_from_a_configuration_file_a_list_is_one_command_each(mooring):
    config = "companions = ['python companion.py one 0', 'python companion.py two,x 0']\n"
    app = mooring.run(files={"main.py": ASGI_APP, "companion.py": PROGRAM, "mooring.toml": config}, workers=1)
    eventually(lambda: _starts(app, "one") and _starts(app, "two,x"), "both")
    assert app.stop() == 0


def test_a_quote_that_is_not_closed_is_refused(mooring):
    app = mooring.start("run", MOORING_COMPANIONS="python 'x")
    assert app.wait_exit() == 2
    assert "MOORING_COMPANIONS" in app.last_line
    assert "each quote closed" in app.last_line
