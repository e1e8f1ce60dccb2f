"""How the cgroup files' values are read, and how the cgroup that binds this process is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import GIB, MIB, TREES, build, limits_v1, limits_v2, machine, membership_v1, mount_v2, mounts_v1

from mooring.resources import Resources, read

TOP = "/sys/fs/cgroup"
NO_MEMORY_V1 = (None, f"no limit in {TOP}/memory/memory.limit_in_bytes")
NO_MEMORY_V2 = (None, f"no limit in {TOP}/memory.max")


def resources(root: Path) -> Resources:
    return read(root, environ={}, affinity=range(64))


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000", None),
        ("max", None),
        ("50000 100000", 0.5),
        ("50000", 0.5),
        ("1000 1000000", 0.001),
        ("333333 100000", 3.33333),
    ],
)
def test_cpu_max(content: str, cores: float | None, tmp_path: Path) -> None:
    root = build(tmp_path, {**TREES["docker v2"].files, f"{TOP}/cpu.max": f"{content}\n"})
    found = resources(root)
    assert found.cpu_quota.value == pytest.approx(cores)
    assert found.warnings == ()


def test_v1_quota_counts_in_its_own_period(tmp_path: Path) -> None:
    folder = f"{TOP}/cpu,cpuacct"
    files = {**TREES["docker v1"].files, f"{folder}/cpu.cfs_quota_us": "20000\n"}
    root = build(tmp_path, {**files, f"{folder}/cpu.cfs_period_us": "50000\n"})
    assert resources(root).cpu_quota.value == 0.4


@pytest.mark.parametrize(
    ("content", "count"), [("0", 1), ("0-3,8", 5), ("0-7,16,32-39,64,65", 19), ("0,2,4", 3)]
)
def test_cpuset_lists(content: str, count: int, tmp_path: Path) -> None:
    root = build(tmp_path, {**TREES["docker v2"].files, f"{TOP}/cpuset.cpus.effective": f"{content}\n"})
    assert resources(root).cpuset.value == count


def test_an_empty_cpuset_inherits(tmp_path: Path) -> None:
    own, above = f"{TOP}/docker/d71c9d0cd816", f"{TOP}/docker"
    files = {**TREES["docker v2, host namespace"].files, f"{own}/cpuset.cpus.effective": "\n"}
    found = resources(build(tmp_path, {**files, f"{above}/cpuset.cpus.effective": "4-6\n"}))
    assert (found.cpuset.value, found.cpuset.source) == (3, f"{above}/cpuset.cpus.effective")
    assert found.warnings == ()


def test_the_nearest_effective_list_decides(tmp_path: Path) -> None:
    """cgroup-v2.rst: CPUs given to a partition are taken out of its ancestors' effective lists."""
    files = {
        **TREES["docker v2, host namespace"].files,
        f"{TOP}/docker/d71c9d0cd816/cpuset.cpus.effective": "0-3\n",
        f"{TOP}/docker/cpuset.cpus.effective": "3-4\n",
    }
    assert resources(build(tmp_path, files)).cpuset.value == 4


def test_without_effective_lists_ancestors_cut(tmp_path: Path) -> None:
    """Before Linux 3.17 there is no cpuset.effective_cpus."""
    folder = f"{TOP}/cpuset"
    files = {
        **machine(),
        "/proc/self/cgroup": membership_v1("/a/b"),
        "/proc/self/mountinfo": mounts_v1("/"),
        f"{folder}/cpuset.cpus": "0-7\n",
        f"{folder}/a/cpuset.cpus": "0-1\n",
        f"{folder}/a/b/cpuset.cpus": "0-3\n",
    }
    found = resources(build(tmp_path, files)).cpuset
    assert (found.value, found.source) == (2, f"{folder}/a/cpuset.cpus")


@pytest.mark.parametrize("limit", ["9223372036854771712", "9223372036854710272", str(33 * GIB)])
def test_v1_limits_above_the_machines_memory_are_none(limit: str, tmp_path: Path) -> None:
    files = {**TREES["docker v1"].files, **limits_v1("", memory=limit)}
    found = resources(build(tmp_path, files)).memory_limit
    assert (found.value, found.source) == NO_MEMORY_V1


def test_the_huge_v1_number_is_none_where_memtotal_is_unknown(tmp_path: Path) -> None:
    files = {**TREES["docker v1"].files, **limits_v1("")}
    del files["/proc/meminfo"]
    assert resources(build(tmp_path, files)).memory_limit.value is None


@pytest.mark.parametrize(
    ("highest", "high", "limit", "name"),
    [
        (GIB, "max", GIB, "memory.max"),
        (GIB, 2 * GIB, GIB, "memory.max"),
        ("max", 2 * GIB, 2 * GIB, "memory.high"),
        (3 * GIB, 2 * GIB, 2 * GIB, "memory.high"),
        (GIB, GIB, GIB, "memory.max"),
        ("max", "max", None, None),
        (64 * GIB, "max", None, None),
    ],
)
def test_memory_high_counts_where_it_is_lower(
    highest: str | int, high: str | int, limit: int | None, name: str | None, tmp_path: Path
) -> None:
    files = {**TREES["docker v2"].files, **limits_v2(TOP, memory=highest, high=high)}
    found = resources(build(tmp_path, files)).memory_limit
    assert (found.value, found.source) == ((limit, f"{TOP}/{name}") if name else NO_MEMORY_V2)


def test_swap_is_not_counted(tmp_path: Path) -> None:
    files = {**TREES["docker v2"].files, f"{TOP}/memory.swap.max": f"{4 * GIB}\n"}
    assert resources(build(tmp_path, files)).memory_limit.value == 512 * MIB


def test_one_ancestor_is_named_in_the_singular(tmp_path: Path) -> None:
    files = {**TREES["docker v2, host namespace"].files, **limits_v2(f"{TOP}/docker/d71c9d0cd816")}
    source = resources(build(tmp_path, files)).cpu_quota.source
    assert source == f"no limit in {TOP}/docker/d71c9d0cd816/cpu.max and its 1 ancestor"


# Finding the cgroup


def test_mount_points_with_spaces_are_found(tmp_path: Path) -> None:
    files = {
        **machine(),
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": mount_v2(top="/mnt/c\\040d\\134e"),
        **limits_v2("/mnt/c d\\e", cpu="100000"),
    }
    assert resources(build(tmp_path, files)).cpu_quota.value == 1


def test_a_mount_over_a_mount_counts_last(tmp_path: Path) -> None:
    files = {
        **machine(),
        "/proc/self/cgroup": "0::/a/b\n",
        "/proc/self/mountinfo": mount_v2("/a/b") + mount_v2("/a"),
        **limits_v2(TOP, cpu="700000"),
        **limits_v2(f"{TOP}/b", cpu="100000"),
    }
    found = resources(build(tmp_path, files)).cpu_quota
    assert (found.value, found.source) == (1.0, f"{TOP}/b/cpu.max")


def test_a_mount_that_holds_the_path_is_preferred(tmp_path: Path) -> None:
    files = {
        **machine(),
        "/proc/self/cgroup": "0::/docker/a\n",
        "/proc/self/mountinfo": mount_v2("/b", "/other") + mount_v2("/docker"),
        **limits_v2("/other/docker/a", cpu="700000"),
        **limits_v2(f"{TOP}/a", cpu="100000"),
    }
    assert resources(build(tmp_path, files)).cpu_quota.value == 1


def test_a_cgroup_named_like_its_ancestor(tmp_path: Path) -> None:
    files = {
        **machine(),
        "/proc/self/cgroup": "0::/docker/docker\n",
        "/proc/self/mountinfo": mount_v2("/docker"),
        **limits_v2(f"{TOP}/docker", cpu="200000"),
        **limits_v2(f"{TOP}/docker/docker", cpu="100000"),
    }
    assert resources(build(tmp_path, files)).cpu_quota.value == 2


def test_a_path_outside_the_namespace_is_read_from_the_mount_with_a_warning(tmp_path: Path) -> None:
    files = {**TREES["docker v2"].files, "/proc/self/cgroup": "0::/../../other\n"}
    found = resources(build(tmp_path, files))
    assert found.cpu_quota.value == 1.5
    assert len(found.warnings) == 1


def test_no_path_leads_out_of_the_mount(tmp_path: Path) -> None:
    files = {
        **TREES["docker v2"].files,
        "/proc/self/cgroup": "0::/a/../../../../etc\n",
        "/etc/cpu.max": "100000 100000\n",
    }
    assert resources(build(tmp_path, files)).cpu_quota.value == 1.5


def test_colons_in_a_cgroups_name(tmp_path: Path) -> None:
    files = {
        **machine(),
        "/proc/self/cgroup": "0::/system.slice/a:b.service\n",
        "/proc/self/mountinfo": mount_v2(),
        **limits_v2(f"{TOP}/system.slice/a:b.service", cpu="100000"),
    }
    assert resources(build(tmp_path, files)).cpu_quota.value == 1
