"""What a change leaves when it fails, at whatever point: nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mooring.commands.conda.apart import apart, begin, done
from mooring.commands.conda.places import Places
from mooring.errors import ToolError


def _killed() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.parametrize("ends", [lambda: 3, _killed, lambda: 1 // 0], ids=["code", "killed", "crashed"])
@pytest.mark.parametrize("was_there", [True, False])
def test_an_environment_that_failed_is_gone_and_the_one_before_is_back(
    tmp_path: Path, ends: Callable[[], int], was_there: bool
) -> None:
    prefix, before = tmp_path / "envs/a", tmp_path / "envs/.a.old"
    prefix.parent.mkdir()
    if was_there:
        prefix.mkdir()
        (prefix / "old").touch()

    def work(at: Places) -> int:
        (at.scratch / "download").touch()
        begin(at, prefix, before if was_there else None)
        if was_there:
            prefix.rename(before)
        prefix.mkdir()
        (prefix / "half").touch()
        return ends()

    if ends is _killed:
        with pytest.raises(ToolError, match="signal 9"):
            apart(Places(tmp_path, {}), work)
    else:
        assert apart(Places(tmp_path, {}), work) in (1, 3)
    left = {path.name for path in tmp_path.rglob("*")}
    assert left == {"envs", "pkgs"} | ({"a", "old"} if was_there else set())


def test_what_is_complete_stays(tmp_path: Path) -> None:
    """As when pip fails afterwards."""

    def work(at: Places) -> int:
        begin(at, tmp_path / "a")
        (tmp_path / "a").mkdir()
        done(at)
        return 1

    assert apart(Places(tmp_path, {}), work) == 1
    assert (tmp_path / "a").is_dir()
