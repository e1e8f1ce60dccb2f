"""Malformed and unreadable files: one line each that names the file and its content, and reading goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import GIB, MIB, TREES, build

from mooring.resources import Resources, read

TOP = "/sys/fs/cgroup"
QUOTA_V1 = f"{TOP}/cpu,cpuacct/cpu.cfs_quota_us"
MEMORY_V1 = f"{TOP}/memory/memory.limit_in_bytes"


def resources(root: Path) -> Resources:
    return read(root, environ={}, affinity=range(64))


@pytest.mark.parametrize(
    ("tree", "file", "content"),
    [
        ("docker v2", f"{TOP}/cpu.max", "asdf 100000"),
        ("docker v2", f"{TOP}/cpu.max", "100000 asdf"),
        ("docker v2", f"{TOP}/cpu.max", "100000 0"),
        ("docker v2", f"{TOP}/cpu.max", "0 100000"),
        ("docker v2", f"{TOP}/cpu.max", "-1 100000"),
        ("docker v2", f"{TOP}/cpu.max", "1 2 3"),
        ("docker v2", f"{TOP}/cpu.max", ""),
        ("docker v2", f"{TOP}/cpu.max", "\u0661\u0660 100000"),
        ("docker v2", f"{TOP}/cpu.max", "1_0 100000"),
        ("docker v2", f"{TOP}/cpu.max", "9" * 5000),
        ("docker v2", f"{TOP}/memory.max", "12 GB"),
        ("docker v2", f"{TOP}/memory.high", "-5"),
        ("docker v2", f"{TOP}/cpuset.cpus.effective", "0-a"),
        ("docker v2", f"{TOP}/cpuset.cpus.effective", "3-1"),
        ("docker v2", f"{TOP}/cpuset.cpus.effective", "0-99999999999"),
        ("docker v2", f"{TOP}/cpuset.cpus.effective", "1,,2"),
        ("docker v2", "/sys/devices/system/cpu/online", "all"),
        ("docker v2", "/proc/meminfo", "MemFree: 1 kB"),
        ("docker v2", "/proc/meminfo", "MemTotal: lots"),
        ("docker v1", QUOTA_V1, "-2"),
        ("docker v1", QUOTA_V1, "0"),
        ("docker v1", f"{TOP}/cpu,cpuacct/cpu.cfs_period_us", "0"),
        ("docker v1", f"{TOP}/cpu,cpuacct/cpu.cfs_period_us", ""),
        ("docker v1", MEMORY_V1, "unlimited"),
        ("docker v1", f"{TOP}/cpuset/cpuset.effective_cpus", "x"),
        ("docker v2", "/proc/self/cgroup", "nonsense"),
        ("docker v2", "/proc/self/mountinfo", "1 2 - cgroup2 cgroup"),
    ],
)
def test_a_malformed_file_is_named_with_its_content(
    tree: str, file: str, content: str, tmp_path: Path
) -> None:
    found = resources(build(tmp_path, {**TREES[tree].files, file: f"{content}\n"}))
    (warning,) = found.warnings
    assert warning.startswith(f"{file} is ignored: expected ")
    assert repr(content[:57])[:-1] in warning
    assert len(warning) < 250


def test_a_malformed_level_leaves_the_others(tmp_path: Path) -> None:
    files = {**TREES["systemd slice v2"].files, f"{TOP}/apps.slice/cpu.max": "?\n"}
    found = resources(build(tmp_path, files))
    assert found.cpu_quota.value == 4.0
    assert found.memory_limit.value == 3 * GIB


def test_malformed_own_quota_is_not_taken_for_no_limit(tmp_path: Path) -> None:
    found = resources(build(tmp_path, {**TREES["docker v2"].files, f"{TOP}/cpu.max": "?\n"}))
    assert found.cpu_quota.source == f"no usable cpu.max in {TOP} or above"
    assert found.memory_limit.value == 512 * MIB


@pytest.mark.parametrize(("tree", "quota"), [("docker v1", 2.5), ("docker v2", 1.5)])
def test_without_memberships_the_mount_points_are_read(tree: str, quota: float, tmp_path: Path) -> None:
    found = resources(build(tmp_path, {**TREES[tree].files, "/proc/self/cgroup": "?\n"}))
    assert found.cpu_quota.value == quota


def test_a_malformed_membership_line_leaves_the_others(tmp_path: Path) -> None:
    files = dict(TREES["systemd slice v2"].files)
    files["/proc/self/cgroup"] = "?\n" + files["/proc/self/cgroup"]
    assert resources(build(tmp_path, files)).cpu_quota.value == 1.5


def test_a_v1_quota_without_its_period_takes_the_kernels(tmp_path: Path) -> None:
    files = dict(TREES["docker v1"].files)
    del files[f"{TOP}/cpu,cpuacct/cpu.cfs_period_us"]
    found = resources(build(tmp_path, files))
    assert found.cpu_quota.value == 2.5
    assert found.warnings == ()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A folder stands for any error on reading: tests may run as root, whom no mode stops."""
    files = dict(TREES["docker v2"].files)
    del files[f"{TOP}/cpu.max"]
    found = resources(build(tmp_path, {**files, f"{TOP}/cpu.max/": ""}))
    assert found.warnings == (f"{TOP}/cpu.max cannot be read: Is a directory",)
    assert found.memory_limit.value == 512 * MIB


def test_invalid_utf8_and_control_characters_stay_printable(tmp_path: Path) -> None:
    root = build(tmp_path, TREES["docker v2"].files)
    (root / "sys/fs/cgroup/cpu.max").write_bytes(b"\xff\x1b[31m\n")
    (warning,) = resources(root).warnings
    assert warning.isprintable()
