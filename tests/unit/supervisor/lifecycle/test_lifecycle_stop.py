"""Stopping: one deadline for everything, no spawn any more, and an exit only when nothing is left."""

from __future__ import annotations

import pytest
from test_lifecycle import Run, ended, failure

from mooring.supervisor.lifecycle import (
    Beat,
    Cause,
    Drain,
    Event,
    Exit,
    Exited,
    FleetState,
    Kill,
    Notice,
    Ready,
    Reason,
    RecycleDue,
    Resize,
    Roll,
    SetSize,
    Stop,
    StopNow,
    Tick,
    WorkerState,
)


def test_a_stop_drains_everything_until_one_deadline_then_kills() -> None:
    run = Run().serving(2).do(Stop())
    assert run.actions == (Drain(0, 8.0), Drain(1, 8.0))
    assert run.do(Exited(0)).actions == ()
    assert run.wait().actions == (Kill(1, Cause.GRACE_DEADLINE),)
    assert run.now == 8.0
    assert run.do(Exited(1)).actions == (Exit(0),)
    assert run.fleet.state is FleetState.STOPPED
    assert run.told[Notice.STOPPED] == [{"why": Reason(Cause.STOP_ASKED), "exit_code": 0}]


def test_ready_workers_serve_on_for_the_drain_delay_and_starting_ones_go_at_once() -> None:
    run = Run(drain_delay=5.0).serving().do(SetSize(2), Stop())
    assert run.actions[1:] == (Drain(1, 13.0),)
    assert run.do(Beat(0), at=4.0).actions == ()
    assert run.wait().actions == (Drain(0, 13.0),)
    assert run.now == 5.0


def test_it_takes_nothing_new_once_no_worker_accepts_any_more() -> None:
    run = Run(drain_delay=5.0).serving(2)
    assert not run.fleet.takes_nothing_new
    assert not run.do(Stop()).fleet.takes_nothing_new
    assert run.wait().fleet.takes_nothing_new
    assert not Run(drain_delay=5.0).serving(2).do(Roll()).fleet.takes_nothing_new
    assert Run(drain_delay=5.0).serving(2).do(Stop(), Exited(0), Exited(1)).fleet.takes_nothing_new
    assert Run(drain_delay=5.0).serving(2).do(Stop(), StopNow()).fleet.takes_nothing_new


def test_a_worker_that_falls_in_the_drain_delay_is_not_replaced() -> None:
    run = Run(drain_delay=5.0).serving(2).do(Stop(), Exited(0, ended("crash")))
    assert run.actions == ()
    assert run.do(Exited(1, ended("crash"))).actions == (Exit(0),)


def test_a_second_term_changes_nothing() -> None:
    run = Run().serving().do(Stop())
    before = run.fleet
    assert run.do(Stop(), at=5.0).fleet == before


@pytest.mark.parametrize("first", [Tick(), Stop()])
def test_stop_now_kills_at_once_and_again_until_all_are_gone(first: Event) -> None:
    run = Run(drain_delay=5.0).serving(2).do(first, StopNow())
    assert [a.serial for a in run.actions if isinstance(a, Kill)] == [0, 1]
    assert run.wait().now == 1.0
    assert [a.serial for a in run.actions if isinstance(a, Kill)] == [0, 1]
    assert run.do(Exited(0), Exited(1)).actions == (Exit(0),)


def test_it_waits_for_a_child_that_a_kill_does_not_reach() -> None:
    run = Run().serving().do(StopNow())
    for _ in range(100):
        run.wait()
    assert run.fleet.state is FleetState.STOPPING
    assert run.do(Exited(0)).actions == (Exit(0),)


@pytest.mark.parametrize("event", [Roll(), Resize(3), SetSize(9), RecycleDue(0), Ready(0), Exited(1), Tick()])
def test_no_spawn_after_stop(event: Event) -> None:
    assert Run().serving(2).do(Stop()).do(event, Tick()).actions == ()


@pytest.mark.parametrize("stop", [Stop(), StopNow()])
def test_stopping_before_anything_was_started_exits_at_once(stop: Event) -> None:
    assert Run().do(stop).actions == (Exit(0),)


def test_stopping_while_booting() -> None:
    run = Run().do(Tick(), Stop())
    assert run.state(0) is WorkerState.DRAINING
    assert run.do(Exited(0, ended("signal 15"))).actions == (Exit(0),)  # asked first: no boot failure


def test_a_boot_failures_code_stays_whatever_is_asked_afterwards() -> None:
    run = Run(size=2).do(Tick(), Exited(0, failure("no engine"), exit_code=2, fatal=True), Stop(), StopNow())
    assert run.do(Exited(1)).actions == (Exit(2),)


def test_the_stopped_stay_stopped() -> None:
    run = Run().do(Stop())
    before = run.fleet
    assert run.do(Roll(), Resize(1), StopNow(), Stop(), Tick(), at=9.0).actions == ()
    assert run.fleet == before
