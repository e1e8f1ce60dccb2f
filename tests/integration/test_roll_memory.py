"""Rolls and recycles where memory is short: a real limit, real traffic, nothing lost, nothing killed."""

from __future__ import annotations

import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ASGI_APP, Starter, eventually
from load import Load

MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")
APP = ASGI_APP.replace('VERSION = "1"', f'VERSION = "1"\nBALLAST = bytearray(b"x") * {60 * MIB}')
NEW = APP.replace('VERSION = "1"', 'VERSION = "2"')


class Cgroup:
    """A cgroup with a memory limit, of version 1 or 2."""

    def __init__(self) -> None:
        first = CGROUPS / "memory"
        self.unified = not first.is_dir()
        self.folder = (CGROUPS if self.unified else first) / f"mooring-test-{uuid.uuid4().hex[:12]}"
        self.folder.mkdir()

    def limit(self, count: int) -> None:
        name = "memory.max" if self.unified else "memory.limit_in_bytes"
        (self.folder / name).write_text(str(count))

    @property
    def kills(self) -> int:
        name = "memory.events" if self.unified else "memory.oom_control"
        found = re.search(r"^oom_kill (\d+)$", (self.folder / name).read_text(), re.MULTILINE)
        assert found
        return int(found[1])

    @property
    def prefix(self) -> list[str]:
        return ["sh", "-c", f'echo $$ >{self.folder}/cgroup.procs && exec "$0" "$@"']

    def remove(self) -> None:
        eventually(lambda: not (self.folder / "cgroup.procs").read_text(), "an empty cgroup")
        self.folder.rmdir()


@pytest.fixture
def cgroup(mooring: Starter) -> Iterator[Cgroup]:
    made = None
    try:
        made = Cgroup()
        made.limit(1024 * MIB)
    except OSError as error:
        if made is not None:
            made.folder.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    yield made
    for app in mooring.started:
        app.destroy()
    made.remove()


def used(app):
    """What the workers and mooring take: bytes."""
    return sum(worker["memory_bytes"] for worker in app.status()["workers"])


def roll(app, generation):
    """Roll under load; the least number of ready workers and the most processes that were seen."""
    seen = []
    with Load(app, "/version") as load:
        eventually(lambda: len(load.answers) > 20, "traffic")
        app.signal(signal.SIGHUP)

        def rolled():
            workers = app.status()["workers"]
            seen.append((sum(w["state"] == "ready" for w in workers), len(workers)))
            return f"rolled: generation {generation} serves" in app.stderr

        eventually(rolled, "the roll", timeout=120)
        app.wait_ready(app.status()["size"])
    assert load.failed == []
    assert load.answers[-1] == "2"
    return min(ready for ready, _ in seen), max(total for _, total in seen)


@pytest.mark.parametrize(
    ("more", "how", "least", "most"),
    [
        (4.5, "rolls all at once: 3 x ", 3, 6),
        (1.6, "rolls one by one: 3 x ", 3, 4),
        (0.5, "rolls one by one, each drained before its replacement starts: not one more", 2, 3),
    ],
    ids=["all", "one", "none"],
)
def test_a_roll_starts_as_many_as_fit(mooring, cgroup, more, how, least, most):
    app = mooring.run(workers=3, files={"main.py": APP}, prefix=cgroup.prefix, MOORING_MEMORY_HEADROOM=0)
    each = max(worker["memory_bytes"] for worker in app.status()["workers"])
    cgroup.limit(int(used(app) + 15 * MIB + more * each))
    app.write("main.py", NEW)
    ready, total = roll(app, 2)
    assert how in app.stderr, app.stderr
    assert (ready >= least, total <= most) == (True, True), (ready, total)
    surge = app.status()["last_roll"]["surge"]
    assert cgroup.folder.name in surge["why"]
    assert cgroup.kills == 0
    assert app.stop() == 0


def test_a_bad_release_without_room_costs_one_worker_until_the_next_roll(mooring, cgroup):
    app = mooring.run(workers=3, files={"main.py": APP}, prefix=cgroup.prefix, MOORING_MEMORY_HEADROOM=0)
    each = max(worker["memory_bytes"] for worker in app.status()["workers"])
    cgroup.limit(int(used(app) + 15 * MIB + each // 2))
    app.write("main.py", "raise RuntimeError('bad release')\n")
    with Load(app, "/version") as load:
        app.signal(signal.SIGHUP)
        app.wait_log("roll to generation 2 failed")
        app.wait_log("next try in", count=3)
        assert len(app.wait_ready(2)) == 2
        app.write("main.py", NEW)
        app.wait_ready(3)
        app.signal(signal.SIGHUP)
        app.wait_log("rolled: generation 3 serves")
        app.wait_ready(3)
    assert load.failed == []
    assert app.get("/version").text == "2"
    assert cgroup.kills == 0
    assert app.stop() == 0


def test_recycling_without_room_retires_first_and_says_so_once(mooring, cgroup):
    app = mooring.run(
        workers=2, files={"main.py": APP}, prefix=cgroup.prefix, MOORING_MEMORY_HEADROOM=0,
        MOORING_MAX_REQUESTS=100, MOORING_MAX_REQUESTS_JITTER=0,
    )  # fmt: skip
    each = max(worker["memory_bytes"] for worker in app.status()["workers"])
    cgroup.limit(int(used(app) + 15 * MIB + each // 2))
    seen = []
    with Load(app, "/version") as load:

        def enough():
            workers = app.status()["workers"]
            seen.append((sum(w["state"] == "ready" for w in workers), len(workers)))
            return app.stderr.count("recycling worker") > 4

        eventually(enough, "recycles", timeout=100)
    assert load.failed == []
    assert (min(ready for ready, _ in seen), max(total for _, total in seen)) == (1, 2)
    assert app.stderr.count("recycles one by one, each drained before its replacement starts: not one") == 1
    assert app.status()["surge"]["width"] == 0
    assert cgroup.kills == 0
    assert app.stop() == 0


def test_the_only_worker_is_rolled_beside_itself(mooring, cgroup):
    app = mooring.run(workers=1, files={"main.py": APP}, prefix=cgroup.prefix, MOORING_MEMORY_HEADROOM=90)
    cgroup.limit(used(app) + 150 * MIB)
    app.write("main.py", NEW)
    assert roll(app, 2) == (1, 2)
    assert app.wait_log("rolls beside the old worker, although it may not fit: not one more")
    assert cgroup.kills == 0
    assert app.stop() == 0


def test_term_while_a_slot_is_retired_for_a_roll(mooring, cgroup):
    app = mooring.run(workers=2, files={"main.py": APP}, prefix=cgroup.prefix, MOORING_MEMORY_HEADROOM=0)
    each = max(worker["memory_bytes"] for worker in app.status()["workers"])
    cgroup.limit(int(used(app) + 15 * MIB + each // 2))
    app.write("main.py", "import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    app.signal(signal.SIGHUP)
    app.signal(signal.SIGHUP)
    app.wait_log("importing")
    assert app.get("/version").text == "1"
    assert app.stop(timeout=10) == 0
    assert app.leftovers == []
