"""The metrics page: what promtool says to it, and numbers from rows that forked processes have filled."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from trees import TREES, build

from mooring.metrics.multiprocess.client import DOWN, UP
from mooring.metrics.prometheus import METRICS, Collected, family, render
from mooring.resources import oom_kills
from mooring.scoreboard import row
from mooring.scoreboard.row import BOUNDS, BUCKETS, DROPPED, DURATIONS, HISTOGRAM, METHOD_BASE, Row
from mooring.scoreboard.totals import Totals
from mooring.supervisor.history import EXIT_LABELS, Exits, ended_by
from mooring.supervisor.lifecycle import Cause, Notice, Reason, WorkerState

SAMPLE = re.compile(r'^(mooring_\w+)(\{(?:\w+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)$')


@pytest.fixture
def scoreboard():
    made = Totals()
    yield made
    made.close()


def child(work: Callable[[], None]) -> None:
    """Run it in a process of its own, as a worker would."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def serve(scoreboard: Totals, serial: int, method: str, status: int, seconds: float, times: int = 1) -> None:
    """A worker with a row that has answered so many requests."""
    (index,) = scoreboard.give(serial)

    def work() -> None:
        row = Row(scoreboard.fd, index)
        row.claim(serial, 1, time.monotonic())
        row.cells[METHOD_BASE[method] + status // 100] += times
        bucket = next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
        row.cells[HISTOGRAM + bucket] += times
        row.cells[DURATIONS] += seconds * times

    child(work)


def collected(scoreboard: Totals, **more: object) -> Collected:
    known = {
        "in_flight": 0, "websockets": 0, "workers": {"ready": 1}, "exits": dict.fromkeys(EXIT_LABELS, 0),
        "rolls": {"rolled": 0}, "memory": {0: 2**20}, "generation": 1, "version": "1", "engine": "uvicorn",
        "interface": "asgi", "started": 1.5e9, **more,
    }  # fmt: skip
    return Collected(totals=scoreboard.totals(), **known)  # type: ignore[arg-type]


def samples(page: str) -> dict[str, float]:
    """Series and values; every line has to be one or a comment."""
    found = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.match(line)
            assert match, line
            series = f"{match[1]}{match[2] or ''}"
            assert series not in found
            found[series] = float(match[3])
    return found


def test_counts_are_added_up_over_rows_and_outlive_their_workers(scoreboard):
    serve(scoreboard, 1, "GET", 200, 0.003, 5)
    serve(scoreboard, 2, "GET", 200, 0.003, 2)
    serve(scoreboard, 3, "POST", 503, 7.0)
    before = samples(render(collected(scoreboard)))
    assert before['mooring_http_requests_total{method="GET",status="2xx"}'] == 7
    assert before['mooring_http_requests_total{method="POST",status="5xx"}'] == 1
    scoreboard.take(1)
    scoreboard.take(3)
    after = samples(render(collected(scoreboard)))
    assert {name: value for name, value in after.items() if "http" in name} == {
        name: value for name, value in before.items() if "http" in name
    }


def test_series_of_get_are_there_before_the_first_request(scoreboard):
    names = [name for name in samples(render(collected(scoreboard))) if "requests_total" in name]
    assert names == [f'mooring_http_requests_total{{method="GET",status="{n}xx"}}' for n in (2, 3, 4, 5)]


def test_the_histogram_is_cumulative_and_its_count_is_infinity(scoreboard):
    for serial, seconds in enumerate((0.00001, 0.0001, 0.00011, 0.9, 1.0, 61.0)):
        serve(scoreboard, serial, "GET", 200, seconds)
    found = samples(render(collected(scoreboard)))
    buckets = {
        name.partition('le="')[2].rstrip('"}'): value for name, value in found.items() if "_bucket" in name
    }
    assert list(buckets.values()) == sorted(buckets.values())
    assert [buckets[le] for le in ("5e-05", "0.0001", "0.00025", "0.5", "1", "60", "+Inf")] == [
        1,
        2,
        3,
        3,
        5,
        5,
        6,
    ]
    assert found["mooring_http_request_duration_seconds_count"] == buckets["+Inf"]
    assert found["mooring_http_request_duration_seconds_sum"] == pytest.approx(62.90022)
    assert len(buckets) == len(list(row.each_bound())) + 1


def test_what_is_not_known_has_no_series(scoreboard):
    page = render(collected(scoreboard))
    for name in ("cpu_limit_cores", "throttled", "memory_limit", "app_metrics_up"):
        assert name not in page
    found = samples(
        render(collected(scoreboard, cpu_cores=1.5, throttled=0.25, memory_limit=2**30, app_metrics_up=False))
    )
    assert found["mooring_cpu_limit_cores"] == 1.5
    assert found["mooring_cpu_throttled_seconds_total"] == 0.25
    assert found["mooring_memory_limit_bytes"] == 2**30
    assert found["mooring_app_metrics_up"] == 0


def test_each_metric_is_declared_once_and_what_may_be_absent_says_when(scoreboard):
    names = [f"mooring_{metric.name}" for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[A-Z].*[^ ]", metric.help) for metric in METRICS)
    known = collected(scoreboard, cpu_cores=2, throttled=1.5, memory_limit=1, app_metrics_up=True)
    assert re.findall("^# TYPE (\\S+) ", render(known), re.MULTILINE) == names
    unknown = re.findall("^# TYPE (\\S+) ", render(collected(scoreboard, memory={})), re.MULTILINE)
    assert set(names) - set(unknown) == {
        f"mooring_{metric.name}"
        for metric in METRICS
        if metric.absent and metric.name != "http_requests_total"
    }


def test_series_have_the_labels_that_are_declared(scoreboard):
    known = collected(scoreboard, cpu_cores=2, throttled=1.5, memory_limit=1, app_metrics_up=True)
    for metric in METRICS:
        series = samples(family(metric, metric.sample(known)))
        told = {tuple(re.findall(r'[{,](\w+)="', each)) for each in series}
        histogram = metric.type == "histogram"  # its sum and its count have no bound
        assert told == ({metric.labels, ()} if histogram else {metric.labels}), metric.name
    with pytest.raises(TypeError):
        family(METRICS[0], [(("GET",), 1)])


def test_whether_the_applications_own_are_there_is_told_as_declared(scoreboard):
    """The page's first part says so itself where it has waited too long for the second."""
    for up, text in ((True, UP), (False, DOWN)):
        assert render(collected(scoreboard, app_metrics_up=up)).count(text.decode()) == 1


def test_labels_are_escaped(scoreboard):
    page = render(collected(scoreboard, version='1"\\\n2'))
    assert 'version="1\\"\\\\\\n2"' in page
    samples(page)


def test_a_row_of_garbage_spoils_no_page(scoreboard):
    (index,) = scoreboard.give(1)

    def work() -> None:
        row = Row(scoreboard.fd, index)
        row.claim(0, 1, 0.0)
        row.data[:] = os.urandom(len(row.data))
        row.cells[DROPPED] = float("nan")
        row.cells[DURATIONS] = 1e308
        row.cells[HISTOGRAM] = 1e308
        row.cells[HISTOGRAM + 1] = 1e308

    child(work)
    found = samples(render(collected(scoreboard)))
    assert all(value >= 0 for value in found.values())


def test_promtool_has_nothing_to_say(scoreboard):
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "promtool is missing: apt-get install prometheus"
        pytest.skip("promtool is not installed: apt-get install prometheus")
    serve(scoreboard, 1, "GET", 200, 0.003, 5)
    page = render(collected(scoreboard, cpu_cores=2, throttled=1.5, memory_limit=1, app_metrics_up=True))
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    broken = page.replace("mooring_generation 1", "mooring_generation one")
    assert subprocess.run(
        [promtool, "check", "metrics"], input=broken, capture_output=True, text=True, check=False
    ).returncode


def test_64_rows_are_read_and_rendered_in_a_few_milliseconds(scoreboard):
    """The goal is 5 ms (benchmarks/scrape.py); a shared machine is given ten times that."""
    for serial in range(64):
        (index,) = scoreboard.give(serial)
        row = Row(scoreboard.fd, index)
        row.claim(serial, 1, 0.0)
        for cell in range(HISTOGRAM, HISTOGRAM + BUCKETS):
            row.cells[cell] = 1000.0 + serial
        row.close()
    times = []
    for _ in range(20):
        began = time.perf_counter()
        render(collected(scoreboard))
        times.append(time.perf_counter() - began)
    assert min(times) < 0.05


# -- exits -------------------------------------------------------------------------------------------------

EXITS = [
    (WorkerState.DRAINING, ended_by(0), Cause.STOPPING, "drained"),
    (WorkerState.DRAINING, ended_by(0), Cause.SUPERSEDED, "drained"),
    (WorkerState.DRAINING, ended_by(0), Cause.RECYCLED, "recycled"),
    (WorkerState.DRAINING, ended_by(-signal.SIGTERM), Cause.BEYOND_SIZE, "drained"),
    (WorkerState.DRAINING, ended_by(1), Cause.RECYCLED, "exit_code"),
    (WorkerState.DRAINING, ended_by(-signal.SIGSEGV), Cause.STOPPING, "signal"),
    (WorkerState.DRAINING, Reason(Cause.OUT_OF_MEMORY), Cause.STOPPING, "out_of_memory"),
    (WorkerState.DRAINING, Reason(Cause.FAILED, "exit code 0"), Cause.STOPPING, "exit_code"),
    (WorkerState.DRAINING, Reason(Cause.NOT_SPAWNED, "EAGAIN"), Cause.STOPPING, "exit_code"),
    (WorkerState.READY, ended_by(0), None, "exit_code"),
    (WorkerState.READY, ended_by(-signal.SIGKILL), None, "signal"),
    (WorkerState.READY, ended_by(-signal.SIGTERM), None, "signal"),
    (WorkerState.READY, Reason(Cause.FAILED, "killed by SIGKILL"), None, "exit_code"),
    (WorkerState.STARTING, Reason(Cause.FAILED, "cannot import main: KeyError: 'X'"), None, "boot_failed"),
    (WorkerState.STARTING, Reason(Cause.FAILED, "could not be spawned: said it"), None, "boot_failed"),
    (WorkerState.STARTING, Reason(Cause.ENDED_EARLY, "exit code 7"), None, "boot_failed"),
    (WorkerState.STARTING, ended_by(-signal.SIGSEGV), None, "boot_failed"),
    (WorkerState.STARTING, Reason(Cause.OUT_OF_MEMORY), None, "out_of_memory"),
    (WorkerState.STARTING, Reason(Cause.NOT_SPAWNED, "Cannot allocate memory"), None, "spawn_failed"),
    (WorkerState.KILLED, ended_by(-signal.SIGKILL), Cause.BOOT_DEADLINE, "boot_deadline"),
    (WorkerState.KILLED, ended_by(-signal.SIGKILL), Cause.HEARTBEAT_DEADLINE, "heartbeat_deadline"),
    (WorkerState.KILLED, ended_by(-signal.SIGKILL), Cause.GRACE_DEADLINE, "grace_deadline"),
    (WorkerState.KILLED, ended_by(-signal.SIGKILL), Cause.STOP_NOW, "stopped_now"),
    (WorkerState.KILLED, ended_by(0), Cause.STOP_NOW, "stopped_now"),
]


@pytest.mark.parametrize(("state", "why", "ordered", "reason"), EXITS)
def test_an_exit_has_one_of_a_few_reasons(state, why, ordered, reason):
    exits = Exits(lambda: 7)
    failed = state in (WorkerState.READY, WorkerState.STARTING)
    data = {"serial": 3, "slot": 0, "state": state, "why": why, "failed": failed, "ordered": ordered}
    assert exits.note(Notice.EXITED, data) == reason
    assert exits.by_reason == {**dict.fromkeys(EXIT_LABELS, 0), reason: 1}
    assert bool(exits.failed) is (failed or reason in ("boot_deadline", "heartbeat_deadline"))


def test_a_kill_that_the_kernel_counts_was_for_memory():
    kills = [5]
    exits = Exits(lambda: kills[0])

    def ended(number=signal.SIGKILL, state=WorkerState.READY):
        data = {"serial": 1, "slot": 0, "state": state, "failed": True, "ordered": None}
        return exits.note(Notice.EXITED, {**data, "why": exits.explain(-number)})

    assert ended() == "signal"
    kills[0] = 6
    assert ended(signal.SIGSEGV) == "signal"
    assert ended() == "out_of_memory"
    assert ended() == "signal"
    kills[0] = 8  # two at once
    assert [ended(state=WorkerState.STARTING), ended(), ended()] == [
        "out_of_memory",
        "out_of_memory",
        "signal",
    ]
    assert exits.failed == {0: 7}


def test_the_kernels_count_is_read_from_the_cgroup(tmp_path):
    root = build(tmp_path, TREES["docker v2"].files)
    exits = Exits(lambda: oom_kills(root))
    assert str(exits.explain(-signal.SIGKILL)) == "killed by SIGKILL"
    (root / "sys/fs/cgroup/memory.events").write_text("oom 4\noom_kill 2\n")
    assert str(exits.explain(-signal.SIGKILL)) == "killed by the kernel: out of memory"
    assert str(exits.explain(-signal.SIGKILL)) == "killed by SIGKILL"
