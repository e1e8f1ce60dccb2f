"""Rolls and recycles: the new is ready before the old drains, and what can't boot is rolled back."""

from __future__ import annotations

import errno
import math

from test_lifecycle import Run, ended, failure

from mooring.supervisor.lifecycle import (
    Beat,
    Drain,
    Exit,
    Exited,
    FleetState,
    Measure,
    Notice,
    Ready,
    RecycleDue,
    Resize,
    Roll,
    SetSize,
    Spawn,
    SpawnFailed,
    Stop,
    Surge,
    Tick,
    WorkerState,
    step,
)


def test_a_roll_replaces_one_slot_after_the_other_and_never_has_fewer_ready() -> None:
    run = Run(surge=1).serving(2).do(Roll())
    assert run.spawned == [(2, 0, 2)]
    assert run.do(Ready(2)).actions == (Drain(0, 8.0),)
    assert run.do(Exited(0)).spawned == [(3, 1, 2)]
    assert run.do(Ready(3)).actions == (Drain(1, 8.0),)
    assert run.fleet.state is FleetState.SERVING
    assert run.told[Notice.ROLLED] == [{"generation": 2}]
    assert run.do(Exited(1)).ready == [2, 3]


def test_a_larger_surge_replaces_all_at_once_when_the_first_has_proven_the_generation() -> None:
    run = Run(surge=3).serving(3).do(Roll())
    assert run.spawned == [(3, 0, 2)]
    assert run.do(Ready(3)).actions == (Drain(0, 8.0), Spawn(4, 1, 2), Spawn(5, 2, 2))


def test_as_many_at_a_time_as_fit() -> None:
    run = Run(surge=2).serving(4).do(Roll())
    assert run.do(Ready(4)).spawned == [(5, 1, 2)]  # worker 0 drains, and takes room
    assert run.do(Exited(0)).spawned == [(6, 2, 2)]
    assert run.do(Ready(5), Ready(6)).spawned == []


def test_nothing_is_replaced_before_the_surge_was_measured() -> None:
    run = Run().serving(2)
    fleet, actions = step(run.fleet, Roll(), 0.0)
    assert Measure() in actions
    assert not [a for a in actions if isinstance(a, Spawn | Drain)]
    fleet, actions = step(fleet, Tick(), 0.1)
    assert actions == ()  # asked once
    _, actions = step(fleet, Surge(1), 0.2)
    assert actions[0] == Spawn(2, 0, 2)


def test_it_is_measured_again_with_each_worker_that_is_ready_or_gone() -> None:
    run = Run(surge=3).serving(3).do(Roll())
    run.surge = 1
    assert run.do(Ready(3)).actions == (Drain(0, 8.0),)  # they have grown
    assert run.do(Exited(0)).spawned == [(4, 1, 2)]
    run.surge = 2
    assert run.do(Ready(4)).actions == (Drain(1, 8.0), Spawn(5, 2, 2))


def test_where_not_one_more_fits_each_is_retired_before_its_replacement_starts() -> None:
    run = Run().serving(2)
    run.surge = 0
    assert run.do(Roll()).actions == (Drain(0, 8.0),)
    assert run.do(Tick(), at=1.0).actions == ()  # what drains has the room
    assert run.do(Exited(0)).spawned == [(2, 0, 2)]
    assert run.do(Tick(), at=2.0).actions == ()  # only one is missing at a time
    assert run.do(Ready(2)).actions == (Drain(1, 10.0),)
    assert run.do(Exited(1)).spawned == [(3, 1, 2)]
    assert run.do(Ready(3)).told[Notice.ROLLED] == [{"generation": 2}]
    assert run.fleet.surge == 1  # again


def test_the_only_worker_is_never_retired_first() -> None:
    run = Run().serving()
    run.surge = 0
    assert run.do(Roll()).spawned == [(1, 0, 2)]
    assert run.do(Ready(1)).actions == (Drain(0, 8.0),)


def test_none_is_retired_while_another_slot_does_not_serve() -> None:
    run = Run().serving(2)
    run.surge = 0
    run.do(Exited(1, ended("crash")), Roll())
    assert run.actions == (Spawn(2, 1, 2),)
    assert run.do(Ready(2)).actions == (Drain(0, 8.0),)


def test_a_slot_retired_for_what_can_not_boot_is_tried_again_and_the_others_serve_on() -> None:
    run = Run().serving(3)
    run.surge = 0
    run.do(Roll(), Exited(0), Exited(3, ended("ImportError")))
    assert (run.fleet.generation, run.ready) == (1, [1, 2])
    assert run.wait().spawned == [(4, 0, 1)]


def test_a_recycle_retires_first_where_not_one_more_fits() -> None:
    run = Run().serving(2)
    run.surge = 0
    assert run.do(RecycleDue(1), RecycleDue(0)).actions == (Drain(1, 8.0),)
    assert run.do(Exited(1)).spawned == [(2, 1, 1)]
    assert run.do(Ready(2)).actions == (Drain(0, 8.0),)


def test_a_generation_that_can_not_boot_is_rolled_back_and_the_old_never_stopped_serving() -> None:
    run = Run().serving(2).do(Roll(), Exited(2, failure("ImportError"), exit_code=3, fatal=True))
    assert run.actions == (Spawn(2, 0, 2),)
    assert run.ready == [0, 1]
    assert (run.fleet.state, run.fleet.generation) == (FleetState.SERVING, 1)
    failed = {"failed": 2, "generation": 1, "why": failure("ImportError"), "rolled_back": True}
    assert run.told[Notice.ROLL_FAILED] == [failed]


def test_after_a_failed_roll_the_next_one_tries_again_at_once_with_a_number_of_its_own() -> None:
    run = Run().serving().do(Roll(), Exited(1, ended("ImportError")), Roll())
    assert run.spawned == [(1, 0, 2), (2, 0, 3)]


def test_a_rolled_back_generation_is_drained_whatever_else_of_it_was_starting() -> None:
    run = Run(surge=2).serving(2).do(Roll(), Exited(1, ended("crash"))).wait()
    assert run.spawned == [(3, 1, 2)]
    assert run.do(Exited(2, ended("crash"))).actions == (Drain(3, 8.5), Spawn(4, 1, 1))
    assert run.ready == [0]


def test_a_generation_that_was_ready_once_is_not_rolled_back_but_tried_again() -> None:
    run = Run().serving(2).do(Roll(), Ready(2), Exited(0), Exited(3, ended("out of memory")))
    assert (run.fleet.state, run.fleet.generation, run.ready) == (FleetState.ROLLING, 2, [1, 2])
    assert run.wait().spawned == [(4, 1, 2)]
    assert run.do(Ready(4)).fleet.state is FleetState.SERVING


def test_trap_ready_and_another_ones_boot_deadline_in_one_step() -> None:
    run = Run(surge=2, heartbeat_timeout=None).serving(2).do(Roll(), Exited(1, ended("crash"))).wait()
    run.do(Ready(3), at=60.0)
    assert run.state(2) is WorkerState.KILLED
    assert run.fleet.generation == 2  # 3 is proof: 2 is tried again


def test_a_spawn_that_fails_is_no_fault_of_the_new_generation() -> None:
    run = Run().serving().do(Roll(), SpawnFailed(1, errno.EAGAIN))
    assert run.fleet.state is FleetState.ROLLING
    assert run.wait().spawned == [(2, 0, 2)]


def test_a_worker_that_falls_during_a_roll_comes_back_in_the_new_generation() -> None:
    run = Run().serving(2).do(Roll(), Exited(1, ended("crash")), Ready(2)).wait()
    assert run.spawned == [(3, 1, 2)]
    assert run.do(Ready(3)).fleet.state is FleetState.SERVING


def test_a_roll_does_not_wait_for_an_old_worker_that_hangs_in_its_start() -> None:
    run = Run().serving(2).do(Exited(1, ended("crash"))).wait().do(Exited(0, ended("crash"))).do(Roll())
    assert run.spawned == [(3, 0, 2)]
    assert run.do(Ready(3)).spawned == [(4, 1, 2)]
    assert run.do(Ready(4)).state(2) is WorkerState.DRAINING


def test_trap_the_old_generations_boot_failure_neither_fails_the_roll_nor_waits_for_another() -> None:
    run = Run(boot_failures_fatal=False).serving(2).do(Exited(1, ended("crash"))).wait().do(Roll())
    assert run.do(Exited(2, ended("crash"))).fleet.generation == 2
    assert run.fleet.failures[1].retry_at == run.now + 0.5


def test_trap_two_of_a_failed_generation_in_one_step_wait_for_the_next_roll_in_dev() -> None:
    run = Run(boot_failures_fatal=False, surge=2, heartbeat_timeout=None).serving(2)
    run.do(Exited(0, ended("crash")), Exited(1, ended("crash")), Roll()).wait()
    assert [failures.retry_at for failures in run.fleet.failures.values()] == [math.inf, math.inf]
    assert run.fleet.generation == 1


# -- rolls during rolls ------------------------------------------------------------------------------------


def test_a_roll_during_a_roll_queues_exactly_one_more() -> None:
    run = Run().serving().do(Roll(), Roll(), Roll(), Roll())
    assert run.spawned == [(1, 0, 2)]
    assert len(run.told[Notice.ROLL_QUEUED]) == 1
    assert run.do(Ready(1), Exited(0)).spawned == [(2, 0, 3)]
    assert run.do(Ready(2), Exited(1)).fleet.state is FleetState.SERVING
    assert len(run.told[Notice.ROLLING]) == 2


def test_the_next_roll_waits_while_as_many_generations_drain_as_may() -> None:
    run = Run(surge=4, max_draining_generations=1).serving(2).do(Roll(), Ready(2), Ready(3), Roll())
    assert run.fleet.state is FleetState.SERVING
    assert run.do(Exited(0)).spawned == []
    assert run.do(Exited(1)).spawned == [(4, 0, 3)]


def test_a_long_drain_delays_the_next_roll_by_no_more_than_the_grace_period() -> None:
    run = Run(surge=4).serving().do(Roll(), Ready(1), Roll()).do(Beat(1), at=7.0).do(Tick(), at=8.0)
    assert run.state(0) is WorkerState.KILLED
    assert run.spawned == [(2, 0, 3)]


def test_a_roll_while_booting_begins_once_the_fleet_serves() -> None:
    run = Run().do(Tick(), Roll())
    assert run.spawned == [(0, 0, 1)]
    assert run.do(Ready(0)).spawned == [(1, 0, 2)]


def test_growing_and_shrinking_during_a_roll() -> None:
    run = Run().serving(2).do(Roll(), Resize(1))
    assert run.spawned == [(2, 0, 2), (3, 2, 2)]
    run.do(Ready(2), Ready(3), SetSize(1))
    assert run.fleet.state is FleetState.SERVING
    assert run.ready == [2]


# -- without overlap: mooring dev --------------------------------------------------------------------------


def test_without_overlap_the_old_is_gone_before_the_new_starts() -> None:
    run = Run(overlap=False, boot_failures_fatal=False).serving().do(Roll())
    assert run.actions == (Drain(0, 8.0),)
    assert run.do(Exited(0)).spawned == [(1, 0, 2)]
    assert run.do(Ready(1)).told[Notice.ROLLED] == [{"generation": 2}]


def test_without_overlap_the_newest_roll_wins() -> None:
    run = Run(overlap=False, boot_failures_fatal=False).serving().do(Roll(), Roll(), Exited(0))
    assert run.spawned == [(1, 0, 3)]
    assert run.do(Roll()).actions == (Drain(1, 8.0),)
    assert run.do(Exited(1)).spawned == [(2, 0, 4)]


def test_without_overlap_a_failed_roll_waits_for_the_next_one() -> None:
    run = (
        Run(overlap=False, boot_failures_fatal=False)
        .serving()
        .do(Roll(), Exited(0), Exited(1, ended("SyntaxError")))
    )
    assert run.told[Notice.ROLL_FAILED][0]["rolled_back"] is False
    assert run.do(Tick(), at=1000.0).actions == ()
    assert run.do(Roll()).spawned == [(2, 0, 3)]


# -- recycles ----------------------------------------------------------------------------------------------


def test_a_recycled_worker_serves_until_its_replacement_is_ready() -> None:
    run = Run().serving().do(RecycleDue(0))
    assert run.spawned == [(1, 0, 1)]
    assert run.ready == [0]
    assert run.do(Ready(1)).actions == (Drain(0, 8.0),)


def test_never_two_recycles_at_once() -> None:
    run = Run(surge=4).serving(2).do(RecycleDue(1), RecycleDue(0))
    assert run.spawned == [(2, 1, 1)]
    assert run.do(Ready(2)).spawned == []
    assert run.do(Exited(1)).spawned == [(3, 0, 1)]


def test_a_replacement_that_can_not_boot_backs_off_and_the_old_serves_on() -> None:
    run = Run().serving().do(RecycleDue(0), Exited(1, ended("crash")))
    assert run.ready == [0]
    assert run.wait().spawned == [(2, 0, 1)]


def test_recycles_wait_while_rolling_and_are_not_forgotten() -> None:
    run = Run(surge=4).serving(2).do(Roll(), Ready(2), RecycleDue(2))
    assert run.spawned == [(2, 0, 2), (3, 1, 2)]
    assert run.do(Ready(3)).spawned == [(4, 0, 2)]


def test_trap_a_roll_that_meets_a_recycle_does_not_wait_for_it() -> None:
    run = Run(surge=1).serving(2).do(RecycleDue(0), Roll())
    assert run.actions == (Spawn(2, 0, 1), Drain(2, 8.0))  # pointless now, and it has the only room
    assert run.do(Exited(2)).spawned == [(3, 0, 2)]
    run.do(Ready(3), Exited(0), Ready(4), Exited(1))
    assert (run.fleet.state, run.ready) == (FleetState.SERVING, [3, 4])


def test_trap_a_roll_that_is_rolled_back_leaves_the_recycle_due() -> None:
    run = Run().serving().do(RecycleDue(0), Roll(), Exited(1), Exited(2, ended("crash")))
    assert run.fleet.generation == 1
    assert run.wait().spawned == [(3, 0, 1)]


def test_trap_term_during_a_roll_stops_within_the_grace_period() -> None:
    run = Run(surge=2).serving(2).do(Roll(), Ready(2)).do(Roll(), Stop(), at=3.0)
    assert [worker.deadline for worker in run.fleet.workers.values()] == [8.0, 11.0, 11.0, 11.0]
    assert run.do(Exited(0), Exited(1), Exited(2), Exited(3)).actions == (Exit(0),)
