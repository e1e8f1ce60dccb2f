"""The signal queue, under a flood of real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from mooring.system.signals import SignalQueue

_ROUNDS = """
import sys
from mooring.system.signals import SignalQueue

print("ready", flush=True)
for _ in range(300):
    queue = SignalQueue()
    queue.END()

print("done", flush=True)
"""


@pytest.mark.parametrize("end", ["retire", "close"])
def test_signals_that_come_while_the_queue_ends_print_nothing(end):
    """Python tells of a handler that has gone between a signal and its turn, with a traceback."""
    # SIGHUP and SIGTERM are ignored outside the queue's time, so that only its own moments are looked at.
    keep = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGHUP, signal.SIGTERM)]\n"
    child = subprocess.Popen(
        [sys.executable, "-c", keep + _ROUNDS.replace("END", end)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    while child.poll() is None:
        os.kill(child.pid, signal.SIGHUP)
        os.kill(child.pid, signal.SIGTERM)
    out, err = child.communicate()
    assert (child.returncode, out, err) == (0, "done\n", "")


def test_a_signal_that_comes_while_the_queue_is_made_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_handler = signal.signal

    def sends_one(number, handler):
        before = set_handler(number, handler)
        if number == signal.SIGHUP and callable(handler):
            signal.raise_signal(signal.SIGHUP)
        return before

    monkeypatch.setattr(signal, "signal", sends_one)
    queue = SignalQueue()
    try:
        assert queue.read() == [signal.SIGHUP]
    finally:
        queue.close()


_CHECKS = """
import os, signal
from mooring.system.signals import SignalQueue, Stopped

queue = SignalQueue()
queue.check("now")
os.kill(os.getpid(), signal.SIGHUP)
queue.check("now")
assert queue.read() == [signal.SIGHUP]
os.kill(os.getpid(), signal.SIGINT)
try:
    queue.check("at its start")
except Stopped as stop:
    print(stop)
"""


def test_a_check_raises_for_a_stop_and_leaves_other_signals_in_the_queue():
    done = subprocess.run([sys.executable, "-c", _CHECKS], capture_output=True, text=True, check=True)
    assert done.stdout == "stopped by SIGINT at its start\n"
