"""Live reload without processes: where changes come from, bursts, the fall back to polling, bytecode."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from mooring.supervisor.reload import files, process, sources
from mooring.supervisor.reload.files import FileRules
from mooring.supervisor.reload.sources import Notified, Polled, WatchOrder
from mooring.system import mounts


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Script:
    """A source that gives what it was told to: sets of paths; seconds are counted, not waited for."""

    def __init__(self, monkeypatch, *steps: tuple[float, str]) -> None:
        self.now, self.steps, self.tree = 0.0, list(steps), files.Tree()
        monkeypatch.setattr(process.time, "monotonic", lambda: self.now)

    def wait(self, timeout: float | None) -> set[str]:
        if not self.steps:
            raise OSError("the end")
        after, path = self.steps[0]
        if timeout is not None and after > timeout:
            self.now += timeout
            self.steps[0] = (after - timeout, path)
            return set()
        self.now += after
        self.steps.pop(0)
        return {path}


def bursts(source: Script, quiet: float) -> list[set[str]]:
    """What comes before the script's end."""
    found: list[set[str]] = []
    with pytest.raises(OSError, match="the end"):
        found.extend(process.bursts(source, quiet))
    return found


def test_bursts_end_with_quiet(monkeypatch):
    source = Script(monkeypatch, (9.0, "a"), (0.2, "b"), (0.2, "a"), (0.3, "c"), (0.1, "d"))
    assert bursts(source, 0.25) == [{"a", "b"}, {"c", "d"}]


def test_a_burst_without_end_ends(monkeypatch):
    source = Script(monkeypatch, *[(0.1, str(number)) for number in range(100)])
    sizes = [len(burst) for burst in bursts(source, 0.25)]
    assert sizes[0] == pytest.approx(5.0 / 0.1, abs=2)
    assert sum(sizes) == 100


def watch(folder: Path, *, polling: str = "auto", since: int | None = None) -> WatchOrder:
    return WatchOrder(
        (str(folder),), FileRules(), polling, 0.05, time.time_ns() + 10**9 if since is None else since
    )


@pytest.mark.parametrize("source", [Notified, Polled])
def test_what_changed_before_the_first_look_is_found(source, tmp_path):
    """The watcher needs a moment to start, and the application may have been imported before."""
    path = write(tmp_path / "main.py")
    assert source(watch(tmp_path, since=path.stat().st_ctime_ns)).wait(1) == {str(path)}
    assert source(watch(tmp_path)).wait(0.1) == set()


@pytest.mark.parametrize("source", [Notified, Polled])
def test_a_source_gives_each_change_once(source, tmp_path):
    path = write(tmp_path / "pkg/main.py")
    found = source(watch(tmp_path))
    write(path, "longer")
    assert found.wait(5) == {str(path)}
    assert found.wait(0.5) == set()
    other = write(tmp_path / "new/sub/x.py")
    assert found.wait(5) == {str(other)}
    assert found.wait(0.5) == set()


def test_polling_takes_no_more_than_its_share(tmp_path, monkeypatch):
    source = Polled(watch(tmp_path))
    assert source.interval == 0.3
    clock = iter([0.0, 0.02])
    monkeypatch.setattr(sources.time, "process_time", lambda: next(clock))
    source._look()
    assert source.interval == pytest.approx(0.02 / 0.005)


class Said:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str):
        return lambda message: self.lines.append((level, message))


def refuse(error: Exception):
    def start(*_args, **_options):
        raise error
        yield

    return start


@pytest.mark.parametrize(
    "error", [OSError("OS file watch limit reached. about [x]"), RuntimeError("Too many")]
)
def test_what_inotify_refuses_is_polled_with_one_warning(error, tmp_path, monkeypatch):
    monkeypatch.setattr("watchfiles.watch", refuse(error))
    log = Said()
    source = process._open(watch(tmp_path), log)
    assert isinstance(source, Polled)
    assert [level for level, _ in log.lines] == ["warning", "info"]
    assert "about" not in log.lines[0][1]


def test_polling_off_never_polls(tmp_path, monkeypatch):
    monkeypatch.setattr("watchfiles.watch", refuse(OSError("no")))
    log = Said()
    assert process._open(watch(tmp_path, polling="off"), log) is None
    assert log.lines == [("error", "live reload is off: no")]


def test_nothing_is_lost_when_listening_ends_in_the_middle(tmp_path, monkeypatch):
    path = write(tmp_path / "main.py")
    source = Notified(watch(tmp_path))
    new = write(tmp_path / "pkg/x.py")
    write(path, "longer")
    monkeypatch.setattr("watchfiles.watch", refuse(OSError("no more")))
    found: set[str] = set()
    with contextlib.suppress(OSError):
        while True:
            found |= source.wait(5)
    with pytest.raises(OSError, match="no more"):
        source.wait(5)
    assert found | Polled(watch(tmp_path), source.tree).wait(1) == {str(path), str(new)}


def test_a_silent_volume_below_the_root_is_enough(tmp_path, monkeypatch):
    write(tmp_path / "volume/x.py")
    info = write(
        tmp_path / "mountinfo", f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {tmp_path}/volume rw - 9p x rw\n"
    )
    monkeypatch.setattr(process.mounts, "silent", lambda folders, real=mounts.silent: real(folders, info))
    log = Said()
    assert isinstance(process._open(watch(tmp_path), log), Polled)
    assert f"{tmp_path}/volume is on 9p, which sends no notifications" in log.lines[0][1]


def test_bytecode_is_written_but_not_for_what_was_just_saved(tmp_path, monkeypatch):
    from importlib.machinery import SourceFileLoader

    from mooring.worker import bytecode

    monkeypatch.setattr(SourceFileLoader, "set_data", SourceFileLoader.set_data)
    bytecode.install()
    path = write(tmp_path / "part.py", "x = 1")
    loader = SourceFileLoader("part", str(path))
    cached = tmp_path / "cache/part.pyc"
    loader.set_data(str(cached), b"bytecode", _mode=0o644)
    assert not cached.exists()
    os.utime(path, (1e9, 1e9))
    loader.set_data(str(cached), b"bytecode", _mode=0o644)
    assert cached.read_bytes() == b"bytecode"
