"""A supervisor as small as can be, with real workers that use prometheus_client: for test_app_metrics.py.

Run as a program with a scenario's name: the variable has to be set before the library is imported.
"""

from __future__ import annotations

import os
import random
import select
import selectors
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mooring.logs.log import Log
from mooring.metrics.multiprocess.client import DOWN, AppMetrics
from mooring.metrics.multiprocess.folder import open_folder
from mooring.system import process
from mooring.system.accounts import Account

MODES = (
    "all",
    "liveall",
    "min",
    "livemin",
    "max",
    "livemax",
    "sum",
    "livesum",
    "mostrecent",
    "livemostrecent",
)


class Stage:
    """Workers, the metrics of theirs, and a loop that waits for nothing but its own selector."""

    def __init__(self, account: Account | None = None) -> None:
        self.selector = selectors.DefaultSelector()
        self.base = tempfile.mkdtemp()
        self.log = Log(2)
        os.chmod(self.base, 0o755)
        folder = open_folder(self.base, account, {"TMPDIR": self.base}, ".", self.log)
        assert folder is not None
        self.apps = AppMetrics(folder, self.selector, self.log, account)
        os.environ.update(folder.environ())
        self.hold: dict[int, int] = {}

    def work(self, run: Callable[[], object]) -> int:
        """A worker that runs this, and lives until it is told to end. Returns its pid once it has run."""
        parent = os.getpid()
        ready, done = os.pipe()
        hold, release = os.pipe()

        pid = os.fork()
        if pid == 0:
            try:
                process.die_with_parent(parent)
                for each in self.hold.values():
                    os.close(each)
                os.close(release)
                run()
                os.write(done, b"1")
                os.read(hold, 1)
            finally:
                os._exit(0)  # as abruptly as a kill: nothing is left to cleaning up
        os.close(done)
        os.close(hold)
        assert os.read(ready, 1) == b"1"
        os.close(ready)
        self.hold[pid] = release
        return pid

    def end(self, pid: int) -> None:
        """End a worker, and do what a supervisor does then."""
        os.close(self.hold.pop(pid))
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.apps.process_gone(pid)
        os.waitpid(pid, 0)

    def turn(self, timeout: float) -> None:
        """One turn of the loop."""
        for key, _ in self.selector.select(timeout):
            key.data()
        self.apps.expire()
        self.reap_helpers()

    def reap_helpers(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self.hold:
                return
            self.apps.process_gone(found.si_pid)
            os.waitpid(found.si_pid, 0)

    def text(self, meanwhile: Callable[[], object] = lambda: None) -> bytes:
        """The page's part, as the loop gets it."""
        told: list[bytes] = []
        self.apps.request(told.append)
        while not told:
            self.turn(0.05)
            meanwhile()
        return told[0]

    def page(self, meanwhile: Callable[[], object] = lambda: None) -> dict:
        return samples(self.text(meanwhile))

    def names(self) -> list[str]:
        return sorted(os.listdir(self.apps.folder.path))

    def close(self) -> None:
        for pid in list(self.hold):
            self.end(pid)
        helper = self.apps.pid
        self.apps.close()
        self.apps.folder.close()
        assert not helper or not Path(f"/proc/{helper}").exists()
        assert os.listdir(self.base) == []
        os.rmdir(self.base)


def samples(page: bytes) -> dict:
    from prometheus_client.parser import text_string_to_metric_families

    found: dict = {}
    for family in text_string_to_metric_families(page.decode()):
        for each in family.samples:
            place = (each.name, *(f"{k}={v}" for k, v in sorted(each.labels.items())))
            assert place not in found, place
            found[place] = each.value
    return found


# -- scenarios ---------------------------------------------------------------------------------------------


def modes() -> None:
    """Every kind of metric and every mode, right before and after deaths."""
    stage = Stage()
    from prometheus_client import Counter, Gauge, Histogram, Summary

    def record(weight: int) -> Callable[[], None]:
        def run() -> None:
            Counter("jobs", "Jobs.", ["queue"]).labels("fast").inc(weight)
            histogram = Histogram("job_seconds", "Time.", buckets=[1, 2.5])
            summary = Summary("job_bytes", "Size.")
            for value in range(weight):
                histogram.observe(value)
                summary.observe(value)
            for mode in MODES:
                Gauge(f"level_{mode}", "Level.", multiprocess_mode=mode).set(weight)

        return run

    one, two, four = (stage.work(record(weight)) for weight in (1, 2, 4))

    def expect(living: dict[int, int], latest_alive: int) -> None:
        found = stage.page()
        lowest, highest, total = min(living.values()), max(living.values()), sum(living.values())
        assert found["mooring_app_metrics_up",] == 1
        assert found["jobs_total", "queue=fast"] == 7
        assert [found["job_seconds_bucket", f"le={le}"] for le in ("1.0", "2.5", "+Inf")] == [5, 6, 7]
        assert (found["job_seconds_count",], found["job_seconds_sum",]) == (7, 7.0)
        assert (found["job_bytes_count",], found["job_bytes_sum",]) == (7, 7.0)
        assert (found["level_min",], found["level_max",], found["level_sum",]) == (1, 4, 7)
        assert (found["level_livemin",], found["level_livemax",], found["level_livesum",]) == (
            lowest,
            highest,
            total,
        )
        assert (found["level_mostrecent",], found["level_livemostrecent",]) == (4, latest_alive)
        assert {key: value for key, value in found.items() if key[0] == "level_liveall"} == {
            ("level_liveall", f"pid={pid}"): value for pid, value in living.items()
        }
        assert {key[1]: value for key, value in found.items() if key[0] == "level_all"} == {
            f"pid={one}": 1,
            f"pid={two}": 2,
            f"pid={four}": 4,
        }

    expect({one: 1, two: 2, four: 4}, 4)
    stage.end(four)
    expect({one: 1, two: 2}, 2)
    stage.end(one)
    expect({two: 2}, 2)
    stage.apps._deaths = 1000
    stage.apps._ask()
    expect({two: 2}, 2)
    assert [name for name in stage.names() if "gone" in name and "gauge_all" not in name] == []
    stage.end(two)
    found = stage.page()
    assert (found["jobs_total", "queue=fast"], found["level_sum",], found["level_mostrecent",]) == (7, 7, 4)
    assert not any(key[0].startswith("level_live") for key in found)
    stage.close()


def thousand() -> None:
    """A thousand replacements, scraped in between: exact, never less, and the folder stays small."""
    stage = Stage()
    from prometheus_client import Counter, Gauge, Histogram

    counter = Counter("jobs", "Jobs.")
    histogram = Histogram("job_seconds", "Time.")
    gauges = [Gauge(f"level_{mode}", "Level.", multiprocess_mode=mode) for mode in MODES]

    def run() -> None:
        counter.inc(0.1)
        histogram.observe(0.3)
        for gauge in gauges:
            gauge.set(1)

    last, looks, most = (0.0, 0.0, 0.0), [0], 0
    told: list[bytes] = []
    asked = False

    def look() -> None:
        nonlocal last
        found = samples(told.pop())
        now = tuple(
            found.get((name,), 0.0) for name in ("jobs_total", "job_seconds_sum", "job_seconds_count")
        )
        assert all(new >= old for new, old in zip(now, last, strict=True)), (last, now)
        last = now
        looks[0] += 1

    workers = [stage.work(run) for _ in range(2)]
    for _ in range(998):
        stage.end(workers.pop(0))
        workers.append(stage.work(run))
        stage.turn(0)
        if told:
            look()
            asked = False
        if not asked:
            stage.apps.request(told.append)
            asked = True
        most = max(most, len(stage.names()))
    while not told:
        stage.turn(0.05)
    look()
    found = stage.page()
    assert found["job_seconds_count",] == 1000
    assert found["jobs_total",] == sum_of(0.1, 1000)
    assert found["job_seconds_sum",] == sum_of(0.3, 1000)
    assert found["level_sum",] == 1000
    assert found["level_livesum",] == 2
    assert sum(key[0] == "level_all" for key in found) <= 19  # 16 dead, 2 living, this process
    assert looks[0] > 20, looks
    # Files of each process: 3 + 10 kinds while it lives, 7 folded later and one of mode "all" after that.
    assert most < (2 * 32 + 3) * 13, most
    print(f"{looks[0]} scrapes, {most} files at most, {len(stage.names())} in the end")
    stage.close()


def sum_of(value: float, times: int) -> float:
    import math

    return math.fsum([value] * times)


def killed() -> None:
    """The helper is killed in the middle of scrapes and folds: nothing lost, nothing counted twice."""
    stage = Stage()
    from prometheus_client import Counter

    counter = Counter("jobs", "Jobs.", ["queue"])

    def run() -> None:
        for queue in range(200):
            counter.labels(str(queue)).inc()

    chance = random.Random(7)
    last, kills, downs, born = 0.0, 0, 0, 0
    least = time.monotonic() + 3

    def perhaps_kill() -> None:
        nonlocal kills
        select.select([], [], [], chance.random() * 0.012)
        if stage.apps.pid > 0 and chance.random() < 0.5:
            os.kill(stage.apps.pid, signal.SIGKILL)
            kills += 1

    while kills <= 50 or time.monotonic() < least:
        for _ in range(8):
            stage.end(stage.work(run))
            born += 1
            perhaps_kill()
            stage.turn(0)
        told: list[bytes] = []
        stage.apps.request(told.append)
        while not told:
            stage.turn(0.001)
            if not told:
                perhaps_kill()
        if told[0] == DOWN:
            downs += 1
            continue
        now = sum(value for key, value in samples(told[0]).items() if key[0] == "jobs_total")
        assert last <= now == 200 * born, (last, now, born)
        last = now
    found = stage.page()
    assert sum(value for key, value in found.items() if key[0] == "jobs_total") == 200 * born
    assert len(stage.names()) < 100
    print(f"{kills} kills, {born} workers, {downs} pages without")
    stage.close()


def hung() -> None:
    """A helper that hangs costs one page, and is replaced; the loop never waits for it."""
    stage = Stage()
    stage.apps.patience = 0.5
    from prometheus_client import Counter

    stage.work(lambda: Counter("jobs", "Jobs.").inc())
    assert stage.page()["jobs_total",] == 1
    first = stage.apps.pid
    os.kill(first, signal.SIGSTOP)
    start = time.monotonic()
    assert stage.text() == DOWN
    assert 0.4 < time.monotonic() - start < 2
    assert stage.page()["jobs_total",] == 1
    assert stage.apps.pid != first
    stage.close()


def idle() -> None:
    """A helper that nobody asks leaves; one that leaves while it is asked is no loss."""
    stage = Stage()
    stage.apps.idle = 0.02
    from prometheus_client import Counter

    assert stage.text() == b""
    assert not stage.apps.pid
    stage.work(lambda: Counter("jobs", "Jobs.").inc())
    pids = set()
    chance = random.Random(1)
    for _ in range(60):
        assert stage.page()["jobs_total",] == 1
        pids.add(stage.apps.pid)
        time.sleep(0.018 + chance.random() * 0.006)
    assert len(pids) > 3, pids
    deadline = time.monotonic() + 10
    while stage.apps.pid > 0 and time.monotonic() < deadline:
        stage.turn(0.05)
    assert not stage.apps.pid
    stage.close()


def crowd() -> None:
    """Many pages asked for at once are two at most: the one under way, and one for all that came since."""
    stage = Stage()
    from prometheus_client import Counter

    counter = Counter("jobs", "Jobs.")
    stage.work(counter.inc)
    told: list[bytes] = []
    stage.apps.request(told.append)
    stage.work(counter.inc)
    for _ in range(20):
        stage.apps.request(told.append)
    while len(told) < 21:
        stage.turn(0.05)
    assert all(samples(each)["jobs_total",] == 2 for each in told[1:])
    assert all(each is told[1] for each in told[1:])
    stage.close()


def refused() -> None:
    """No process can be started: the page goes out without, and says so."""
    import resource

    stage = Stage()
    from prometheus_client import Counter

    stage.work(lambda: Counter("jobs", "Jobs.").inc())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    assert stage.text() == DOWN
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert stage.page()["jobs_total",] == 1
    stage.close()


def light() -> None:
    """The supervisor holds nothing that only the helper needs."""
    stage = Stage()
    stage.work(lambda: Path(stage.apps.folder.path, "counter_1.db").write_bytes(b""))
    assert stage.text().endswith(b"mooring_app_metrics_up 1\n")
    held = {
        name
        for name in sys.modules
        if name.startswith(("mooring.metrics.multiprocess.", "prometheus_client"))
    }
    assert held == {
        f"mooring.metrics.multiprocess.{name}" for name in ("client", "files", "folder", "frames")
    }
    memory = process.proportional_set_size(str(stage.apps.pid)) or 0
    print(f"helper: {memory / 1048576:.1f} MiB")
    stage.close()


def user() -> None:
    """Where workers become another user, the helper does too: what they write, root does not read."""
    if os.geteuid() != 0:
        print("skip: needs root, to become another user")
        return
    account = Account("nobody", 65534, 65534, (), "/")
    stage = Stage(account)
    from prometheus_client import Counter, Gauge

    def run() -> None:
        process.drop_privileges(account.uid, account.gid, account.groups)
        Counter("jobs", "Jobs.").inc()
        Gauge("level", "Level.", multiprocess_mode="livesum").set(2)

    pids = [stage.work(run) for _ in range(40)]
    found = stage.page()
    assert (found["jobs_total",], found["level",]) == (40, 80)
    assert "Uid:\t65534\t65534\t65534\t65534" in Path(f"/proc/{stage.apps.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in Path(f"/proc/{stage.apps.pid}/status").read_text()
    for pid in pids[:39]:
        stage.end(pid)
    found = stage.page()
    assert (found["jobs_total",], found["level",]) == (40, 2)
    assert "counter_folded.db" in stage.names()
    assert len(stage.names()) < 12, stage.names()
    stage.close()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
