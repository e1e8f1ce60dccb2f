"""A stop counts from the first instruction on, as process 1 too, which loses what it does not handle."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from harness import ASGI_APP, eventually
from processes import children, field

BLOCK = ("env", "--block-signal=TERM,INT,QUIT")  # as the images have it
NAMESPACE = ("unshare", "--pid", "--fork")
PENDING = (*BLOCK, "sh", "-c", 'kill -{} $$; exec "$@"', "sh")
AT_ONCE = 20.0  # seconds, on a busy machine; it takes a tenth of one, and for ever where the signal is lost
namespaces = pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
@pytest.mark.parametrize("command", ["run", "dev"])
def test_a_stop_before_python_is_there_ends_it_with_0_and_nothing_is_begun(mooring, command, name):
    prefix = [each.format(name) for each in PENDING]
    files = {"main.py": ASGI_APP, "prestart.sh": "echo the hook\n"}
    app = mooring.start(command, files=files, prefix=prefix)
    assert app.wait_exit(AT_ONCE) == 0
    assert (app.stdout, app.stderr) == ("", "")


def test_another_command_ends_by_the_signal(mooring):
    app = mooring.start(
        "check", files={"main.py": ASGI_APP}, prefix=[each.format("TERM") for each in PENDING]
    )
    assert app.wait_exit(AT_ONCE) == -signal.SIGTERM


@namespaces
def test_another_command_ends_with_143_as_process_1(mooring):
    prefix = [*NAMESPACE, *(each.format("TERM") for each in PENDING)]
    app = mooring.start("check", files={"main.py": ASGI_APP}, prefix=prefix)
    assert app.wait_exit(AT_ONCE) == 128 + signal.SIGTERM


@namespaces
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15, 0.3, 0.6, 1.2])
def test_process_1_ends_with_0_whenever_the_stop_comes(mooring, moment):
    files = {"main.py": ASGI_APP, "prestart.sh": "sleep 0.2\n"}
    app = mooring.start("run", files=files, prefix=[*NAMESPACE, *BLOCK])
    (first,) = eventually(lambda: children(app.pid), "process 1 of the namespace")
    eventually(lambda: blocks_or_handles(first, signal.SIGTERM), "it is past env")
    time.sleep(moment)
    os.kill(first, signal.SIGTERM)
    assert app.wait_exit(AT_ONCE) == 0


def blocks_or_handles(pid, number):
    if field(pid, "Name") == "unshare":  # it blocks too, for a moment
        return False
    masks = int(field(pid, "SigBlk"), 16) | int(field(pid, "SigCgt"), 16)
    return masks & (1 << number - 1)


HANDLED = """
import os, pathlib, signal, sys
from mooring.commands.run.start import run
from mooring.system.signals import SignalQueue

queue = SignalQueue()
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(run({}, dict(os.environ), pathlib.Path.cwd(), queue))
"""


def test_a_stop_that_is_handled_already_runs_no_hook(mooring):
    mooring.command = [sys.executable, "-c", HANDLED]
    app = mooring.start(files={"main.py": ASGI_APP, "prestart.sh": "echo the hook\n"})
    assert app.wait_exit(AT_ONCE) == 0
    assert app.stdout == ""
    assert app.last_line.endswith("stopped by SIGTERM at its start")


def test_no_child_inherits_what_was_blocked(mooring):
    blocked = "grep SigBlk /proc/self/status >{}\n"
    files = {"main.py": ASGI_APP, "prestart.sh": blocked.format("hook")}
    app = mooring.run(
        files={**files, "companion.sh": f"{blocked.format('companion')}exec sleep 600\n"},
        prefix=BLOCK,
        workers=1,
        MOORING_COMPANIONS="sh companion.sh",
    )
    eventually(lambda: (app.folder / "companion").exists() and (app.folder / "companion").read_text(), "it")
    for name in ("hook", "companion"):
        assert int((app.folder / name).read_text().split()[1], 16) == 0, name
    assert int(field(app.ready()[0], "SigBlk"), 16) == 0
    assert int(field(app.pid, "SigBlk"), 16) == 0
    assert app.stop() == 0
