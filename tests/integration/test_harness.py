"""The harness keeps what it promises: or every other test here is worth little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Starter, pids_marked


def test_run_serves_and_stops(mooring):
    app = mooring.run(workers=2)
    assert app.get("/").text == "hello"
    assert app.get("/nowhere").status == 404
    assert app.status()["size"] == 2
    assert len(app.ready()) == 2
    assert app.stop() == 0
    assert not pids_marked(app.mark)


def test_two_instances_have_their_own_status(mooring):
    one, two = mooring.run(workers=1), mooring.run(workers=1)
    assert one.status()["pid"] == one.pid
    assert two.status()["pid"] == two.pid


def test_a_test_that_ends_early_leaves_nothing():
    starter = Starter()
    app = starter.run(workers=2)
    assert starter.close() == []
    assert not pids_marked(app.mark)
    assert not starter.base.exists()


def test_what_an_ended_process_leaves_running_is_told():
    starter = Starter()
    app = starter.start("--version")
    app.wait_exit()
    environ = {"HARNESS_ID": app.mark}
    stray = subprocess.Popen([sys.executable, "-c", "input()"], env=environ, stdin=subprocess.PIPE)
    assert str(stray.pid) in starter.close()[0]
    assert stray.wait() == -signal.SIGKILL


def test_waiting_ends_when_the_process_has_ended(mooring):
    app = mooring.start("--version")
    with pytest.raises(AssertionError, match="ended without"):
        app.wait_log("never said")


def test_a_failing_test_prints_the_logs(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_it(mooring):\n    mooring.run(workers=1)\n    assert False\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", str(tmp_path)]
    environ = {**dict(os.environ), "PYTHONPATH": str(Path(__file__).parent)}
    told = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path).stdout
    assert "listening at http://127.0.0.1:" in told
    assert "1 failed" in told
