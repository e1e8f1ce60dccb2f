"""What the metrics ask: throttling, memory in use, OOM kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import TREES, build

from mooring.resources import cpu_throttled_seconds, memory_current, oom_kills

TOP = "/sys/fs/cgroup"


@pytest.mark.parametrize(
    ("tree", "throttled", "current", "kills"),
    [
        ("docker v1", 2.5, 7045120, 2),
        ("docker v2", 1.5, 8155136, 1),
        ("systemd slice v2", 1.5, 8155136, 1),
        ("this machine", 2.5, 202731520, None),
        ("no cgroups", None, None, None),
        ("controllers not mounted", None, None, None),
    ],
)
def test_usage(
    tree: str, throttled: float | None, current: int | None, kills: int | None, tmp_path: Path
) -> None:
    root = build(tmp_path, TREES[tree].files)
    assert cpu_throttled_seconds(root) == throttled
    assert memory_current(root) == current
    assert oom_kills(root) == kills


def test_throttling_by_an_ancestors_quota_counts(tmp_path: Path) -> None:
    files = {
        **TREES["systemd slice v2"].files,
        f"{TOP}/apps.slice/api.service/cpu.stat": "throttled_usec 0\n",
        f"{TOP}/apps.slice/cpu.stat": "throttled_usec 7250000\n",
    }
    assert cpu_throttled_seconds(build(tmp_path, files)) == 7.25


@pytest.mark.parametrize("content", ["", "throttled_usec", "throttled_usec many", "oom_kill -1\n"])
def test_malformed_usage_is_unknown(content: str, tmp_path: Path) -> None:
    names = ("cpu.stat", "memory.events", "memory.current")
    root = build(tmp_path, {**TREES["docker v2"].files, **{f"{TOP}/{name}": content for name in names}})
    assert (cpu_throttled_seconds(root), memory_current(root), oom_kills(root)) == (None, None, None)
