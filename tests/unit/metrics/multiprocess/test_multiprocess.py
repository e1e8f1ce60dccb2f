"""The folder of the workers' metrics: where it is made, whose it is, what is left of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from mooring.logs.log import Log
from mooring.metrics.multiprocess.folder import MetricsFolder, hand_over, open_folder
from mooring.system.accounts import Account

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
NOBODY = Account("nobody", 65534, 65534, (), "/")


@pytest.fixture
def warnings(tmp_path):
    """A log, and what it has said."""
    with open(tmp_path / "log", "w+b") as file:
        yield Log(file.fileno()), lambda: (tmp_path / "log").read_text()


def made(*args) -> MetricsFolder:
    folder = open_folder(*args)
    assert folder is not None
    return folder


def test_it_is_in_the_runtime_folder_and_goes(tmp_path, warnings):
    log, said = warnings
    runtime = tmp_path / "run"
    runtime.mkdir()
    folder = made(str(runtime), None, {}, ".", log)
    assert folder.path == str(runtime / "metrics")
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    assert not folder.holds_metrics()
    (runtime / "metrics/counter_1.db").write_bytes(b"")
    (runtime / "metrics/.mooring.lock").write_bytes(b"")
    assert folder.holds_metrics()
    folder.close()
    assert list(runtime.iterdir()) == []
    assert said() == ""


def test_what_a_killed_run_has_left_counts_no_more(tmp_path, warnings):
    log, _ = warnings
    (tmp_path / "metrics").mkdir(mode=0o700)
    (tmp_path / "metrics/counter_1.db").write_bytes(b"")
    folder = made(str(tmp_path), None, {}, ".", log)
    assert not folder.holds_metrics()
    folder.close()


def test_a_link_in_its_place_is_not_followed(tmp_path, warnings):
    log, _ = warnings
    runtime, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    runtime.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (runtime / "metrics").symlink_to(elsewhere)
    folder = made(str(runtime), None, {"TMPDIR": str(tmp_path)}, ".", log)
    assert os.path.dirname(folder.path) == str(tmp_path)
    folder.close()
    assert (elsewhere / "precious").exists()


@AS_ROOT
def test_for_workers_of_another_user_it_is_theirs(tmp_path, warnings):
    log, _ = warnings
    tmp_path.chmod(0o755)
    folder = made(str(tmp_path), NOBODY, {"TMPDIR": str(tmp_path)}, ".", log)
    found = os.stat(folder.path)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65534, 0o700)
    assert os.path.basename(folder.path).startswith("mooring-metrics-")
    folder.close()
    assert not os.path.exists(folder.path)


@AS_ROOT
def test_gunicorn_hands_ours_over_and_nothing_else(tmp_path, warnings):
    log, _ = warnings
    folder = made(None, None, {"TMPDIR": str(tmp_path)}, ".", log)
    hand_over(folder.path, 65534, 65534)
    assert os.stat(folder.path).st_uid == 65534
    folder.close()
    assert list(tmp_path.iterdir()) == [tmp_path / "log"]
    hand_over(str(tmp_path), 65534, 65534)
    assert os.stat(tmp_path).st_uid == 0


_LEAVES = """
import os, signal, sys
from mooring.system.accounts import Account
from mooring.metrics.multiprocess.folder import open_folder
from mooring.logs.log import Log
folder = open_folder(None, None, {"TMPDIR": sys.argv[1]}, ".", Log())
open(folder.path + "/counter_1.db", "w").close()
print(folder.path, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def test_what_killed_instances_have_left_elsewhere_is_removed_and_what_living_ones_use_is_not(
    tmp_path, warnings
):
    log, _ = warnings

    def leave(how: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", _LEAVES, str(tmp_path), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with leave("live") as living:
        kept = living.stdout.readline().strip()
        with leave("kill") as dead:
            left = dead.stdout.readline().strip()
        assert dead.returncode == -signal.SIGKILL
        (tmp_path / "mooring-metrics-file").write_text("none of ours")
        assert os.path.exists(left)
        made(None, None, {"TMPDIR": str(tmp_path)}, ".", log).close()
        assert not os.path.exists(left)
        assert os.listdir(kept) == ["counter_1.db"]
        assert (tmp_path / "mooring-metrics-file").exists()
        living.stdin.close()


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_a_folder_that_the_user_names_is_used_made_and_kept(tmp_path, warnings, variable):
    log, said = warnings
    folder = made(str(tmp_path), None, {variable: "own/metrics"}, str(tmp_path), log)
    assert folder.path == str(tmp_path / "own/metrics")
    assert not folder.own
    (tmp_path / "own/metrics/counter_1.db").write_bytes(b"")
    folder.close()
    assert os.listdir(folder.path) == ["counter_1.db"]
    again = made(str(tmp_path), None, {variable: folder.path}, "/", log)
    assert again.holds_metrics()
    again.close()
    assert said() == ""


def test_a_folder_that_cannot_be_is_one_warning(tmp_path, warnings):
    log, said = warnings
    (tmp_path / "file").write_text("x")
    path = str(tmp_path / "file")
    assert open_folder(str(tmp_path), None, {"PROMETHEUS_MULTIPROC_DIR": path + "\n"}, "/", log) is not None
    assert open_folder(str(tmp_path), None, {"PROMETHEUS_MULTIPROC_DIR": path}, "/", log) is None
    assert "PROMETHEUS_MULTIPROC_DIR=" in said()
    assert "File exists; the application's metrics are not merged" in said()
    assert len(said().splitlines()) == 1


_NOWHERE = """
import os, sys
from mooring.metrics.multiprocess import folder
from mooring.logs.log import Log
folder._ROOM = 1 << 62
print(folder.open_folder(sys.argv[1], None, {"TMPDIR": sys.argv[1]}, ".", Log()))
"""


def test_without_any_place_with_room_there_is_one_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _NOWHERE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "None\n"
    assert "not merged: mount a tmpfs" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
