"""What each door answers, from rows that other processes have filled; and the application's metrics."""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import time
from collections.abc import Callable, Iterator

import pytest

from mooring.admin import routes
from mooring.admin.answers import Answer, Deferred, Request
from mooring.admin.routes import Routes
from mooring.application.discovery import Target
from mooring.logs.log import Log
from mooring.plan.plan import Report, plan
from mooring.resources import read
from mooring.scoreboard.row import (
    BUCKETS,
    FULL,
    HISTOGRAM,
    MEMORY,
    METHOD_BASE,
    OVERFLOW,
    READY,
    STATE,
    WEBSOCKETS,
    Row,
)
from mooring.settings.resolve import resolve
from mooring.supervisor import lifecycle
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.workers import Forks, WorkerHandle, Workers
from mooring.system.signals import SignalQueue


@pytest.fixture
def supervisor(tmp_path, request) -> Iterator[Supervisor]:
    engine = getattr(request, "param", "uvicorn")
    target = Target("main", "app", "default", "here", (tmp_path,))
    environ = {"MOORING_APP_ROOT": str(tmp_path), "MOORING_ENGINE": engine}
    planned = plan(resolve({}, environ, tmp_path), read(environ={}), target, None)
    queue = SignalQueue()
    workers = Workers(planned, Forks(lambda *_: lambda: 0, []), [], selectors.DefaultSelector())
    made = Supervisor(workers, Log(2), lifecycle.Policy(), queue)
    made.fleet, _ = lifecycle.step(made.fleet, lifecycle.Tick(), time.monotonic())
    yield made
    queue.close()
    workers.scoreboard.close()


def work(supervisor: Supervisor, fill: Callable[[Row], None], index: int) -> int:
    """A process that claims a row and fills it; its pid."""
    fd = supervisor.workers.scoreboard.fd
    pid = os.fork()
    if pid == 0:
        try:
            row = Row(fd, index)
            row.claim(0, 1, time.monotonic())
            row.cells[STATE] = READY
            fill(row)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    return pid


def served(row: Row) -> None:
    row.cells[METHOD_BASE["GET"] + 2] = 99
    row.cells[METHOD_BASE["GET"] + 5] = 1
    row.cells[HISTOGRAM + 20] = 100
    row.cells[MEMORY] = 50e6
    row.cells[WEBSOCKETS] = 2
    row.cells[OVERFLOW] = 3


def body(answer: Answer | Deferred) -> str:
    assert isinstance(answer, Answer)
    return answer.encode().partition(b"\r\n\r\n")[2].decode()


def test_readiness_says_that_a_worker_is_full(supervisor):
    (index,) = supervisor.workers.scoreboard.give(0)
    pid = work(supervisor, lambda row: row.cells.__setitem__(FULL, 1.0), index)
    supervisor.workers.handles[0] = WorkerHandle(0, 0, 1, pid, -1, time.monotonic(), supervisor.plan)
    worker = supervisor.fleet.workers[0]
    workers = {0: dataclasses.replace(worker, state=lifecycle.WorkerState.READY)}
    supervisor.fleet = dataclasses.replace(supervisor.fleet, workers=workers)
    told = Routes(supervisor).control(Request("GET", "/readyz"))
    assert told.status == 200
    assert body(told) == "ok, but full: 1 of 1 workers have their most connections\n"
    status = json.loads(body(Routes(supervisor).control(Request("GET", "/status"))))
    assert status["full"] == "1 of 1 workers have their most connections"
    assert [row["full"] for row in status["workers"]] == [True]


def test_a_worker_is_told_by_its_row(supervisor):
    (index,) = supervisor.workers.scoreboard.give(0)
    pid = work(supervisor, served, index)
    supervisor.workers.handles[0] = WorkerHandle(0, 0, 1, pid, -1, time.monotonic(), supervisor.plan)
    status = json.loads(body(Routes(supervisor).control(Request("GET", "/status"))))
    (row,) = status["workers"]
    assert (row["pid"], row["requests"], row["errors"], row["in_flight"], row["websockets"]) == (
        pid,
        100,
        1,
        3,
        2,
    )
    assert row["memory_bytes"] == 50_000_000
    assert row["p50_ms"] == row["p99_ms"] > 0
    assert "arbiter_pid" not in row


@pytest.mark.parametrize("supervisor", ["gunicorn"], indirect=True)
def test_an_arbiters_workers_are_told_by_theirs(supervisor):
    indices = supervisor.workers.scoreboard.give(0, arbiter_of=2)
    supervisor.workers.handles[0] = WorkerHandle(
        0,
        0,
        1,
        4242,
        -1,
        time.monotonic(),
        supervisor.plan,
        report=Report("wsgi", "flask", "gunicorn", "main:app", 7),
    )
    pids = [work(supervisor, served, index) for index in indices[:2]]
    rows = json.loads(body(Routes(supervisor).control(Request("GET", "/status"))))["workers"]
    assert sorted(row["pid"] for row in rows) == sorted(pids)
    assert {row["arbiter_pid"] for row in rows} == {4242}
    assert {row["state"] for row in rows} == {"ready"}
    page = body(Routes(supervisor).control(Request("GET", "/metrics")))
    assert 'mooring_worker_memory_bytes{slot="0"} 100000000\n' in page
    assert 'mooring_workers{state="ready"} 2\n' in page


def test_a_row_of_garbage_is_no_error_and_no_broken_json(supervisor):
    (index,) = supervisor.workers.scoreboard.give(0)

    def garble(row: Row) -> None:
        row.data[:] = os.urandom(len(row.data))
        row.cells[STATE] = 1e300
        for cell in range(HISTOGRAM, HISTOGRAM + BUCKETS):
            row.cells[cell] = 1e308
        row.cells[MEMORY] = float("inf")

    work(supervisor, garble, index)
    made = Routes(supervisor)
    for path in ("/status", "/stats"):
        json.loads(body(made.control(Request("GET", path))), parse_constant=pytest.fail)
    body(made.control(Request("GET", "/metrics")))


def test_public_pages_are_made_once_in_a_while_and_others_at_once(supervisor):
    made = Routes(supervisor)
    assert made.public(Request("GET", "/stats")) is made.public(Request("HEAD", "/stats"))
    assert made.public(Request("GET", "/metrics")) is made.public(Request("GET", "/metrics"))
    assert made.control(Request("GET", "/stats")) is not made.control(Request("GET", "/stats"))
    kept = made.public(Request("GET", "/stats"))
    time.sleep(0.11)
    assert made.public(Request("GET", "/stats")) is not kept


def test_the_public_door_tells_nothing_that_the_application_has_said(supervisor):
    why = lifecycle.Reason(lifecycle.Cause.FAILED, "s3cret")
    supervisor.history.note(
        lifecycle.Notice.ROLL_FAILED, {"failed": 2, "generation": 1, "why": why, "rolled_back": True}
    )
    data = {"serial": 0, "slot": 0, "state": lifecycle.WorkerState.STARTING, "why": why, "failed": True}
    supervisor.history.note(lifecycle.Notice.EXITED, {**data, "ordered": None})
    made = Routes(supervisor)
    for path in ("/status", "/stats"):
        assert "s3cret" in body(made.control(Request("GET", path)))
        assert "s3cret" not in body(made.public(Request("GET", path)))
    told = json.loads(body(made.control(Request("GET", "/status"))))
    assert (told["last_roll"]["why"], told["last_exits"][0]["reason"]) == ("s3cret", "s3cret")
    assert told["last_exits"][0].keys() == {"slot", "state", "reason", "kind", "failed", "time"}


def test_why_a_roll_was_refused_is_not_for_the_public(supervisor):
    supervisor.history.refused(2, "mooring.toml: s3cret")
    made = Routes(supervisor)
    assert (
        json.loads(body(made.control(Request("GET", "/status"))))["last_roll"]["why"]
        == "mooring.toml: s3cret"
    )
    assert (
        "the settings were refused"
        in json.loads(body(made.public(Request("GET", "/status"))))["last_roll"]["why"]
    )


# -- the application's own metrics -------------------------------------------------------------------------


class Asked:
    """Somebody who has the application's metrics, later."""

    def __init__(self) -> None:
        self.tells: list[Callable[[bytes], None]] = []

    def __call__(self, tell: Callable[[bytes], None]) -> None:
        self.tells.append(tell)


def test_scrapes_that_wait_share_one_question_and_one_page(supervisor):
    made, asked = Routes(supervisor), Asked()
    made.app_metrics = asked
    one, two, three = (
        made.public(Request("GET", "/metrics")),
        made.public(Request("GET", "/metrics")),
        made.control(Request("GET", "/metrics")),
    )
    assert isinstance(one, Deferred)
    assert one is two is three
    asked.tells[0](b"# TYPE shop_total counter\nshop_total 1\n")
    assert one.answer is not None
    assert body(one.answer).endswith("\nshop_total 1\n")
    assert body(one.answer).startswith("# HELP mooring_")
    assert made.public(Request("GET", "/metrics")) is one.answer
    assert isinstance(made.control(Request("GET", "/metrics")), Deferred)
    assert len(asked.tells) == 2


def test_metrics_that_are_there_are_an_answer_at_once(supervisor):
    made = Routes(supervisor)
    made.app_metrics = lambda tell: tell(b"shop_total 1\n")
    assert body(made.public(Request("GET", "/metrics"))).endswith("\nshop_total 1\n")


def test_metrics_that_do_not_come_leave_the_rest_of_the_page(supervisor):
    made, asked = Routes(supervisor), Asked()
    made.app_metrics = asked
    waiting = made.public(Request("GET", "/metrics"))
    assert isinstance(waiting, Deferred)
    assert 1 < waiting.deadline - time.monotonic() < 9  # below Prometheus' own 10
    waiting.complete(waiting.expired())
    asked.tells[0](b"late 1\n")
    assert "mooring_app_metrics_up 0\n" in body(waiting.answer)
    assert "late" not in body(waiting.answer)
    again = made.public(Request("GET", "/metrics"))
    assert isinstance(again, Deferred)
    assert again is not waiting


def test_a_mistake_in_a_page_that_comes_later_is_an_answer_too(supervisor, monkeypatch):
    """It is made in the supervisor's loop, where nobody else would catch it."""

    def mistaken(*_):
        raise ZeroDivisionError("a mistake")

    made, asked = Routes(supervisor), Asked()
    made.app_metrics = asked
    monkeypatch.setattr(routes.stats, "collect", mistaken)
    told, expired = made.public(Request("GET", "/metrics")), None
    asked.tells[0](b"shop_total 1\n")
    assert isinstance(told, Deferred)
    assert told.answer is not None
    assert told.answer.status == 500
    expired = made.public(Request("GET", "/metrics"))
    assert isinstance(expired, Deferred)
    assert expired.expired().status == 500


def test_without_a_page_there_is_none(monkeypatch):
    monkeypatch.setattr(routes, "PAGE", "/nonexistent")
    assert routes.page().status == 404
