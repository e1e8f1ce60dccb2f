"""How many workers fit beside the others, in numbers and in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import TREES, build

from mooring.resources import Room, memory_rooms
from mooring.supervisor.surge import Found, decide

MIB = 1 << 20
FILE = "/sys/fs/cgroup/memory.max"
TOP = "/sys/fs/cgroup"


def found(limit: int, used: int, *, size: int = 2, processes: int = 2, growing: int = 0) -> Found:
    room = Room(limit * MIB, used * MIB, FILE)
    return Found(size, processes, 80 * MIB, growing * MIB, [Room(1 << 40, 0, "/proc/meminfo"), room])


@pytest.mark.parametrize(
    ("facts", "headroom", "width"),
    [
        (found(400, 180), 0, 2),
        (found(400, 180), 80, 0),  # 40 % are kept free, which is half of it
        (found(400, 180), 20, 2),
        (found(339, 180), 0, 1),
        (found(259, 180), 0, 0),
        (found(100, 180), 0, 0),
        (found(4000, 180), 0, 2),  # never more than the size
        (found(339, 180, processes=3), 0, 2),  # one is there already, and in use
        (found(339, 180, growing=80), 0, 0),  # one is starting
        (found(500, 180, size=3, processes=2), 0, 3),  # one is missing
        (found(420, 180, size=3, processes=2), 0, 2),
    ],
)
def test_how_many_fit(facts: Found, headroom: int, width: int) -> None:
    assert decide(facts, headroom).width == width


@pytest.mark.parametrize(
    ("facts", "how", "why"),
    [
        (found(512, 180), "all at once", f"2 x 80 MiB fit under the limit of 512 MiB ({FILE})"),
        (
            found(339, 180),
            "one by one",
            f"2 x 80 MiB do not fit under the limit of 339 MiB ({FILE}): 180 MiB are in use",
        ),
        (
            found(450, 180, size=4, processes=4),
            "3 at a time",
            f"4 x 80 MiB do not fit under the limit of 450 MiB ({FILE}): 180 MiB are in use",
        ),
        (
            found(200, 180),
            "one by one, each drained before its replacement starts",
            f"not one more (80 MiB) fits under the limit of 200 MiB ({FILE}): 180 MiB are in use",
        ),
        (
            found(200, 180, size=1, processes=1),
            "beside the old worker, although it may not fit",
            f"not one more (80 MiB) fits under the limit of 200 MiB ({FILE}): 180 MiB are in use",
        ),
    ],
)
def test_in_words(facts: Found, how: str, why: str) -> None:
    assert decide(facts, 0)[1:] == (how, why)


def test_without_a_limit_all_fit_and_what_is_not_known_goes_one_by_one() -> None:
    assert decide(Found(4, 4, MIB, 0, []), 10).width == 4
    assert decide(found(512, 0)._replace(each=0), 10).width == 1


V2 = {
    **TREES["docker v2"].files,
    f"{TOP}/memory.max": "268435456\n",
    f"{TOP}/memory.current": "200000000\n",
    f"{TOP}/memory.stat": "anon 1\nfile 70000000\ninactive_file 50000000\nactive_file 20000000\n",
    "/proc/meminfo": "MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 400000 kB\n",
}


def test_the_page_cache_is_no_use(tmp_path: Path) -> None:
    rooms = memory_rooms(build(tmp_path, V2))
    assert Room(268435456, 130000000, f"{TOP}/memory.max") in rooms
    assert rooms[-1] == Room(1000000 * 1024, 600000 * 1024, "/proc/meminfo")


def test_an_ancestor_counts_with_what_is_used_below_it(tmp_path: Path) -> None:
    files = {
        **TREES["systemd slice v2"].files,
        f"{TOP}/apps.slice/memory.max": "500\n",
        f"{TOP}/apps.slice/memory.current": "400\n",
        f"{TOP}/apps.slice/api.service/memory.max": "450\n",
        f"{TOP}/apps.slice/api.service/memory.current": "100\n",
    }
    rooms = memory_rooms(build(tmp_path, files))
    assert Room(500, 400, f"{TOP}/apps.slice/memory.max") in rooms
    assert Room(450, 100, f"{TOP}/apps.slice/api.service/memory.max") in rooms


def test_a_use_that_is_not_known(tmp_path: Path) -> None:
    rooms = memory_rooms(build(tmp_path, {**V2, f"{TOP}/memory.current": "many\n"}))
    assert Room(268435456, None, f"{TOP}/memory.max") in rooms


def test_version_1(tmp_path: Path) -> None:
    folder = next(name for name in TREES["docker v1"].files if name.endswith("memory.usage_in_bytes"))
    folder = folder.rpartition("/")[0]
    files = {
        **TREES["docker v1"].files,
        f"{folder}/memory.limit_in_bytes": "1000\n",
        f"{folder}/memory.usage_in_bytes": "800\n",
        f"{folder}/memory.stat": "total_inactive_file 300\ntotal_active_file 100\ninactive_file 7\n",
    }
    assert Room(1000, 400, f"{folder}/memory.limit_in_bytes") in memory_rooms(build(tmp_path, files))


def test_nothing_to_read(tmp_path: Path) -> None:
    assert memory_rooms(tmp_path) == []
