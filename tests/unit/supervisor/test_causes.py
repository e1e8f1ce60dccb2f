"""Causes are values: to reword every text for people changes no label, no hang dump, no choice of a line."""

from __future__ import annotations

import errno
import os
import selectors
import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from mooring.application.discovery import Target
from mooring.commands.run import wiring
from mooring.logs.log import Log
from mooring.plan.plan import plan
from mooring.resources import read
from mooring.settings.resolve import resolve
from mooring.supervisor import lifecycle, notices
from mooring.supervisor.history import EXIT_LABELS, LABEL_BY_CAUSE, Exits, History, ended_by
from mooring.supervisor.lifecycle import Cause, Notice, Reason
from mooring.supervisor.lifecycle.cause import TEXTS
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.stacks import HungStacks
from mooring.supervisor.workers import Forks, WorkerHandle, Workers
from mooring.system import process
from mooring.system.signals import SignalQueue
from mooring.worker import heartbeat
from mooring.worker.messages import Failure

SIGKILL = -signal.SIGKILL


@pytest.fixture(params=["as they are", "reworded", "all the same"], autouse=True)
def texts(request, monkeypatch) -> str:
    """The texts for people: every test here holds whatever they are."""
    if request.param != "as they are":
        monkeypatch.setattr(process, "describe", lambda _code: "over")
        for number, cause in enumerate(Cause):
            monkeypatch.setitem(TEXTS, cause, f"text {number}" if request.param == "reworded" else "over")
    return str(request.param)


def test_every_cause_has_a_text() -> None:
    assert TEXTS.keys() == set(Cause)
    assert all(str(Reason(cause, "a detail")) for cause in Cause)


def test_every_label_belongs_to_a_cause_and_every_cause_of_a_worker_has_one() -> None:
    assert set(LABEL_BY_CAUSE.values()) == set(EXIT_LABELS)
    assert LABEL_BY_CAUSE.keys() == set(Cause) - {Cause.STOP_ASKED}  # which ends the fleet, not a worker


# -- labels ------------------------------------------------------------------------------------------------

Story = list[tuple[float, Callable[[], lifecycle.Event]]]  # seconds, and what happens then
READY: Story = [(0.0, lifecycle.Tick), (0.0, lambda: lifecycle.Ready(0))]


def exited(code: int) -> Callable[[], lifecycle.Event]:
    return lambda: lifecycle.Exited(0, ended_by(code))


STORIES: dict[str, Story] = {
    "drained": [*READY, (1.0, lifecycle.Stop), (2.0, exited(0))],
    "recycled": [
        *READY,
        (1.0, lambda: lifecycle.RecycleDue(0)),
        (1.0, lambda: lifecycle.Surge(1)),
        (2.0, lambda: lifecycle.Ready(1)),
        (3.0, exited(0)),
    ],
    "exit_code": [*READY, (1.0, exited(1))],
    "signal": [*READY, (1.0, exited(SIGKILL))],
    "out_of_memory": [*READY, (1.0, lambda: lifecycle.Exited(0, Exits(Counter()).explain(SIGKILL)))],
    "boot_failed": [READY[0], (1.0, lambda: lifecycle.Exited(0, Reason(Cause.ENDED_EARLY, "exit code 0")))],
    "boot_deadline": [READY[0], (60.0, lifecycle.Tick), (61.0, lifecycle.Tick), (61.5, exited(SIGKILL))],
    "heartbeat_deadline": [*READY, (30.0, lifecycle.Tick), (31.0, lifecycle.Tick), (31.5, exited(SIGKILL))],
    "grace_deadline": [*READY, (1.0, lifecycle.Stop), (9.0, lifecycle.Tick), (9.5, exited(SIGKILL))],
    "stopped_now": [*READY, (1.0, lifecycle.StopNow), (2.0, lifecycle.Tick), (2.5, exited(SIGKILL))],
    "spawn_failed": [READY[0], (0.0, lambda: lifecycle.SpawnFailed(0, errno.ENOMEM))],
}


class Counter:
    """What the kernel has killed for its memory: one more each time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


def test_there_is_a_story_for_every_label() -> None:
    assert STORIES.keys() == set(EXIT_LABELS)


@pytest.mark.parametrize("label", EXIT_LABELS)
def test_a_label_does_not_depend_on_a_text(label: str) -> None:
    history = History(exits=Exits(lambda: 0))
    fleet = lifecycle.new_fleet(lifecycle.Policy())
    for now, event in STORIES[label]:
        fleet, actions = lifecycle.step(fleet, event(), now)
        for action in actions:
            if isinstance(action, lifecycle.Announce):
                history.note(action.kind, dict(action.data))
    assert {name for name, count in history.exits.by_reason.items() if count} == {label}
    assert [each["kind"] for each in history.last_exits] == [label]


# -- what the supervisor makes of a process that has ended -------------------------------------------------


class Shell(Supervisor):
    """Only collects its events."""

    posted: lifecycle.Event | None = None

    def post(self, event: lifecycle.Event) -> None:
        self.posted = event


@pytest.fixture
def shell(tmp_path) -> Iterator[Shell]:
    target = Target("main", "app", "default", "here", (tmp_path,))
    planned = plan(resolve({}, {"MOORING_APP_ROOT": str(tmp_path)}, tmp_path), read(environ={}), target, None)
    queue = SignalQueue()
    workers = Workers(planned, Forks(lambda *_: lambda: 0, []), [], selectors.DefaultSelector())
    made = Shell(workers, Log(2), lifecycle.Policy(), queue)
    made.fleet, _ = lifecycle.step(made.fleet, lifecycle.Tick(), 0.0)
    yield made
    queue.close()
    workers.close()


def lost(shell: Shell, code: int, failure: Failure | None = None) -> Cause:
    """The cause that the lifecycle is told when worker 0 has ended."""
    handle = WorkerHandle(0, 0, 1, 4711, -1, 0.0, shell.plan, failure=failure)
    shell.lost(handle, process.Reaped(4711, code))
    assert isinstance(shell.posted, lifecycle.Exited)
    return shell.posted.reason.cause


def test_the_cause_of_an_end(shell: Shell) -> None:
    shell.history.exits = Exits(lambda: 0)
    assert lost(shell, 3) is Cause.ENDED_EARLY
    assert lost(shell, 3, Failure("could not be spawned: it says", 3)) is Cause.FAILED
    shell.fleet, _ = lifecycle.step(shell.fleet, lifecycle.Ready(0), 1.0)
    ends = {code: lost(shell, code) for code in (0, 3, -signal.SIGTERM, SIGKILL)}
    assert list(ends.values()) == [Cause.CLEAN_EXIT, Cause.EXIT_CODE, Cause.TERMINATED, Cause.SIGNAL]


def test_a_kill_for_memory_is_one_also_before_it_was_ready(shell: Shell) -> None:
    shell.history.exits = Exits(Counter())
    assert lost(shell, SIGKILL) is Cause.OUT_OF_MEMORY
    assert lost(shell, -signal.SIGSEGV) is Cause.ENDED_EARLY


# -- the hang dump -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [c for c in Cause if "DEADLINE" in c.name or c is Cause.STOP_NOW])
def test_who_is_asked_for_its_stacks_before_the_kill(monkeypatch, cause: Cause) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(process, "send", lambda pid, number: asked.append((pid, number)))
    stacks = os.memfd_create("stacks")
    handle = SimpleNamespace(serial=0, slot=0, generation=1, pid=4711, stacks=stacks)
    workers = SimpleNamespace(handles={0: handle}, scoreboard=SimpleNamespace(rows={}))
    post_mortem = HungStacks(SimpleNamespace(workers=workers), lambda _serial, _now: 30.0)
    hangs = cause is Cause.HEARTBEAT_DEADLINE
    assert post_mortem.examine(0, cause) is hangs
    assert asked == ([(4711, heartbeat.SIGNAL)] if hangs else [])
    os.close(stacks)


def test_the_lifecycle_kills_a_hung_worker_for_that_cause() -> None:
    fleet = lifecycle.new_fleet(lifecycle.Policy())
    kills = []
    for now, event in STORIES["heartbeat_deadline"]:
        fleet, actions = lifecycle.step(fleet, event(), now)
        kills += [action.cause for action in actions if isinstance(action, lifecycle.Kill)]
    assert kills == [Cause.HEARTBEAT_DEADLINE] * 2


# -- the last line on stderr -------------------------------------------------------------------------------


def last_line(why: Reason) -> str:
    outcome = lifecycle.Outcome(lifecycle.StopReason.BOOT_FAILED, 3, why)
    return wiring._why(outcome, SimpleNamespace(boot_timeout=60.0))


def test_the_last_line_is_chosen_by_the_cause() -> None:
    late = "the application was not ready within 60 s (MOORING_BOOT_TIMEOUT)"
    assert last_line(Reason(Cause.BOOT_DEADLINE)) == late
    refused = Reason(Cause.NOT_SPAWNED, "Cannot allocate memory")
    assert last_line(refused) == f"no worker process could be started: it {refused}"
    for said in ("boot deadline exceeded", "could not be spawned: it says"):
        failed = Reason(Cause.FAILED, said)
        assert last_line(failed) == str(failed)
    assert wiring._why(None, SimpleNamespace(boot_timeout=60.0)) == "the application could not boot"


# -- the log -----------------------------------------------------------------------------------------------


def test_the_log_has_the_text(tmp_path, texts: str) -> None:
    with open(tmp_path / "log", "w+b") as file:
        log = Log(file.fileno())
        log.form = "json"
        data = {"serial": 0, "slot": 0, "generation": 1, "state": lifecycle.WorkerState.KILLED}
        why = ended_by(SIGKILL)
        data |= {"why": why, "failed": True, "ordered": Cause.GRACE_DEADLINE}
        notices.tell(log, Notice.EXITED, data)
        line = (tmp_path / "log").read_text()
    assert f'"why": "{why}"' in line or f'"why":"{why}"' in line
    assert "ordered" not in line
    assert ("killed by SIGKILL" in line) is (texts == "as they are")
