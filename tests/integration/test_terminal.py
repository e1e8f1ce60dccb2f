"""What happens to mooring in a terminal's window when the window is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest
from harness import PATIENCE


def start(mooring, *command):
    """A process in a terminal of its own; returns it with the terminal's other end, once it serves."""
    master, slave = pty.openpty()
    write_app = mooring.folder / "main.py"
    write_app.write_text("async def app(scope, receive, send): ...\n")
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, sys.executable, "-m", "mooring", *command],
        cwd=mooring.folder,
        env={"PATH": os.environ["PATH"], "PORT": "0", "MOORING_RUNTIME_DIR": str(mooring.runtime)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    while b"serving" not in shown:
        shown += os.read(master, 65536)
    return process, master


# Makes the terminal the controlling one, as a terminal's emulator does, and becomes the command.
RUN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["dev", "run"])
def test_a_closed_window_stops_it(mooring, command):
    process, master = start(mooring, command)
    os.close(master)
    assert process.wait(PATIENCE) == 0


def test_a_hup_with_the_window_open_rolls(mooring):
    process, master = start(mooring, "run")
    process.send_signal(signal.SIGHUP)
    shown = b""
    while b"generation 2 serves" not in shown:
        shown += os.read(master, 65536)
    process.terminate()
    assert process.wait(PATIENCE) == 0
    os.close(master)
