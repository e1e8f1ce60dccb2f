"""The worker's table, the start, failures and sizes. Rolls, recycles and stops have files of their own."""

from __future__ import annotations

import errno
import math
import subprocess
import sys
from collections.abc import Callable

import pytest

from mooring.supervisor.lifecycle import (
    Action,
    Announce,
    Beat,
    Beats,
    Cause,
    Drain,
    Event,
    Exit,
    Exited,
    FleetState,
    Kill,
    Measure,
    Notice,
    Policy,
    Ready,
    Reason,
    RecycleDue,
    Resize,
    Roll,
    SetSize,
    Spawn,
    SpawnFailed,
    Stop,
    StopNow,
    Surge,
    Tick,
    WorkerState,
    new_fleet,
    next_deadline,
    step,
)
from mooring.supervisor.lifecycle.table import NEXT, TABLE, Transition, Trigger

STARTING, READY, DRAINING, KILLED = WorkerState


def ended(how: str) -> Reason:
    """By itself, in that way."""
    return Reason(Cause.EXIT_CODE, how)


def failure(said: str) -> Reason:
    """It said why."""
    return Reason(Cause.FAILED, said)


class Run:
    """A fleet, its clock, and what it asked for in the last step. The clock starts at 0.

    Whenever the surge is to be measured, it is `surge`: at first the policy's.
    """

    def __init__(self, size: int = 1, **policy: object) -> None:
        times = {
            "boot_timeout": 60.0,
            "heartbeat_timeout": 30.0,
            "grace": 8.0,
            "reap": 1.0,
            "stable_after": 10.0,
        }
        self.policy = Policy(**{**times, "backoff_initial": 0.5, "backoff_max": 4.0, **policy})  # type: ignore[arg-type]
        self.fleet = new_fleet(self.policy, size)
        self.surge = self.policy.surge
        self.now = 0.0
        self.actions: tuple[Action, ...] = ()
        self.told: dict[Notice, list[dict[str, object]]] = {}

    def do(self, *events: Event, at: float | None = None) -> Run:
        """Let these happen, one after the other, at this time. `actions` are those of all, notices aside."""
        self.now = self.now if at is None else at
        actions: list[Action] = []
        waiting = list(events)
        while waiting:
            self.fleet, more = step(self.fleet, waiting.pop(0), self.now)
            for action in more:
                if isinstance(action, Announce):
                    self.told.setdefault(action.kind, []).append(dict(action.data))
                elif isinstance(action, Measure):
                    waiting.insert(0, Surge(self.surge))
                else:
                    actions.append(action)
        self.actions = tuple(actions)
        return self

    def wait(self) -> Run:
        """Sleep as long as the shell would, then tick."""
        due = next_deadline(self.fleet)
        assert due is not None
        assert due > self.now
        return self.do(Tick(), at=due)

    def serving(self, size: int = 1) -> Run:
        """Boot, then grow to this size: workers 0 to size - 1 are ready."""
        self.do(Tick(), Ready(0), SetSize(size))
        return self.do(*[Ready(serial) for serial in range(1, size)])

    def state(self, serial: int) -> WorkerState | None:
        worker = self.fleet.workers.get(serial)
        return worker.state if worker else None

    @property
    def ready(self) -> list[int]:
        return [worker.serial for worker in self.fleet.workers.values() if worker.state is READY]

    @property
    def spawned(self) -> list[tuple[int, int, int]]:
        return [(a.serial, a.slot, a.generation) for a in self.actions if isinstance(a, Spawn)]


# -- the table: every row, and nothing beside it -----------------------------------------------------------

ARRANGE: dict[WorkerState | None, Callable[[], Run]] = {
    None: lambda: Run(),
    STARTING: lambda: Run().serving().do(SetSize(2)),  # worker 1
    READY: lambda: Run().serving(2),
    DRAINING: lambda: Run().serving(2).do(Resize(-1)),
    KILLED: lambda: Run().serving(2).do(Beat(0), at=29.0).do(Tick(), at=30.0),
}


def superseded(run: Run) -> Run:
    """Make worker 1 pointless, or replace it."""
    if run.state(1) is READY:
        return run.do(RecycleDue(1), Ready(2))
    # A roll's worker comes to the same slot and is ready first; worker 0 is done first, for want of room.
    return run.do(Roll(), Ready(2), Exited(0), Ready(3))


def no_room(run: Run) -> Run:
    """Have worker 1 recycled where not one process more fits."""
    run.surge = 0
    return run.do(RecycleDue(1))


TRIGGERS: dict[Trigger, Callable[[Run], Run]] = {
    Trigger.WANTED: lambda run: run.do(Tick()),
    Trigger.READY: lambda run: run.do(Ready(1)),
    Trigger.BEAT: lambda run: run.do(Beat(1)),
    Trigger.RECYCLE_DUE: lambda run: run.do(RecycleDue(1)),
    Trigger.SUPERSEDED: superseded,
    Trigger.NO_ROOM: no_room,
    Trigger.BEYOND_SIZE: lambda run: run.do(Resize(-1)),
    Trigger.STOPPING: lambda run: run.do(Stop()),
    Trigger.STOP_NOW: lambda run: run.do(StopNow()),
    Trigger.DEADLINE: lambda run: run.do(Beat(0), at=29.0).do(Tick(), at=run.fleet.workers[1].deadline),
    Trigger.SPAWN_FAILED: lambda run: run.do(SpawnFailed(1, errno.EAGAIN)),
    Trigger.EXITED: lambda run: run.do(Exited(1)),
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.state or 'none'}, {row.trigger}")
def test_row(row: Transition) -> None:
    state, trigger, after, _ = row
    serial = 1 if state else 0
    run = ARRANGE[state]()
    assert run.state(serial) == state
    assert TRIGGERS[trigger](run).state(serial) == after


NEWS: dict[Trigger, Event] = {
    Trigger.READY: Ready(1),
    Trigger.BEAT: Beat(1),
    Trigger.RECYCLE_DUE: RecycleDue(1),
}
LATE = [(state, trigger) for state in WorkerState for trigger in NEWS if (state, trigger) not in NEXT]


@pytest.mark.parametrize(("state", "trigger"), LATE)
def test_what_has_no_row_is_late_news_and_changes_nothing(state: WorkerState, trigger: Trigger) -> None:
    run = ARRANGE[state]()
    before = run.fleet
    assert run.do(NEWS[trigger]).fleet == before
    assert run.actions == ()


@pytest.mark.parametrize(
    "kind", [Ready, Beat, RecycleDue, Exited, lambda serial: SpawnFailed(serial, errno.EAGAIN)]
)
def test_unknown_serials_change_nothing(kind: Callable[[int], Event]) -> None:
    run = Run().serving()
    before = run.fleet
    assert run.do(kind(77)).fleet == before


# -- deadlines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "deadline"),
    [(STARTING, 60.0), (READY, 30.0), (DRAINING, 8.0), (KILLED, 31.0)],
)
def test_every_state_has_a_deadline(state: WorkerState, deadline: float) -> None:
    assert ARRANGE[state]().fleet.workers[1].deadline == deadline


@pytest.mark.parametrize("timeout", [None, 0])
def test_without_heartbeat_watch_a_ready_worker_may_be_silent_for_ever(timeout: float | None) -> None:
    assert next_deadline(Run(heartbeat_timeout=timeout).serving().fleet) is None


def test_a_beat_renews_the_heartbeat() -> None:
    assert Run().serving().do(Beat(0), at=20.0).fleet.workers[0].deadline == 50.0


def test_beats_of_several_count_before_anybody_s_time_is_over() -> None:
    run = Run().serving(3).do(Beats((0, 2, 77)), at=30.5)
    assert [run.state(serial) for serial in (0, 1, 2)] == [READY, KILLED, READY]


def test_a_hung_worker_is_killed_again_until_it_exits_and_has_long_been_replaced() -> None:
    run = Run().serving().do(Tick(), at=30.0)
    assert run.actions == (Kill(0, Cause.HEARTBEAT_DEADLINE), Spawn(1, 0, 1))
    assert run.do(Ready(1), at=30.5).actions == ()
    assert run.wait().actions == (Kill(0, Cause.HEARTBEAT_DEADLINE),)
    assert run.wait().actions == (Kill(0, Cause.HEARTBEAT_DEADLINE),)
    assert run.do(Exited(0)).ready == [1]
    assert run.told[Notice.EXITED][0]["ordered"] is Cause.HEARTBEAT_DEADLINE


def test_news_counts_even_where_it_comes_just_after_its_deadline() -> None:
    assert Run().serving().do(Beat(0), at=30.1).state(0) is READY


def test_a_frozen_supervisor_does_not_blame_the_workers_that_were_frozen_with_it() -> None:
    run = Run().serving().do(SetSize(2)).do(Tick(), at=1000.0)
    assert run.actions == ()
    assert [worker.deadline for worker in run.fleet.workers.values()] == [1030.0, 1060.0]


# -- booting -----------------------------------------------------------------------------------------------


def test_it_boots_one_worker_then_serves_then_grows_to_what_fits() -> None:
    run = Run().do(Tick())
    assert run.actions == (Spawn(0, 0, 1),)
    assert run.fleet.state is FleetState.BOOTING
    assert run.do(Ready(0), at=2.0).fleet.state is FleetState.SERVING
    assert run.told[Notice.READY] == [{"serial": 0, "slot": 0, "generation": 1, "seconds": 2.0}]
    assert run.told[Notice.SERVING] == [{"generation": 1, "size": 1}]
    assert run.do(SetSize(3)).spawned == [(1, 1, 1), (2, 2, 1)]


def test_several_workers_boot_together_where_that_is_wanted() -> None:
    run = Run(size=2).do(Tick(), Ready(0))
    assert run.fleet.state is FleetState.BOOTING
    assert run.do(Ready(1)).fleet.state is FleetState.SERVING


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Exited(0, failure("no module named app"), exit_code=3, fatal=True), 3),
        (Exited(0, failure("the engine is missing"), exit_code=2, fatal=True), 2),
        (Exited(0, ended("signal 11")), 3),
        (Exited(0, ended("exit 1"), exit_code=1), 3),
        (Exited(0, failure("exit 0"), exit_code=0, fatal=True), 3),
    ],
    ids=lambda value: str(value),
)
def test_an_application_that_can_not_boot_stops_the_supervisor(event: Event, code: int) -> None:
    run = Run().do(Tick(), event)
    assert run.actions == (Spawn(0, 0, 1), Exit(code))
    assert run.fleet.state is FleetState.STOPPED
    assert run.fleet.outcome is not None
    assert run.fleet.outcome.reason == "boot failed"


def test_a_boot_that_takes_too_long_is_killed_and_stops_the_supervisor() -> None:
    run = Run().do(Tick()).wait()
    assert run.now == 60.0
    assert run.actions == (Kill(0, Cause.BOOT_DEADLINE),)
    assert run.do(Exited(0)).actions == (Exit(3),)


def test_a_boot_failure_takes_the_others_with_it() -> None:
    run = Run(size=2).do(Tick(), Exited(1, ended("crash")))
    assert run.actions[-1] == Drain(0, 8.0)
    assert run.do(Exited(0)).actions == (Exit(3),)


def test_once_booted_a_boot_failure_only_backs_off() -> None:
    run = Run().serving().do(SetSize(2), Exited(1, failure("crash"), exit_code=3, fatal=True))
    assert run.fleet.state is FleetState.SERVING
    assert run.wait().spawned == [(2, 1, 1)]


def test_in_dev_a_boot_failure_waits_for_the_next_roll() -> None:
    run = Run(boot_failures_fatal=False, overlap=False)
    run.do(Tick(), Exited(0, failure("SyntaxError"), 3, fatal=True))
    assert run.told[Notice.BACKOFF][0]["seconds"] == math.inf
    assert next_deadline(run.fleet) is None
    assert run.do(Roll()).spawned == [(1, 0, 2)]
    assert run.do(Ready(1)).fleet.state is FleetState.SERVING


# -- failing -----------------------------------------------------------------------------------------------


def test_the_wait_doubles_up_to_its_limit() -> None:
    run = Run().serving()
    waits = []
    for serial in range(6):
        run.do(Exited(serial, ended("crash")))
        before = run.now
        waits.append(run.wait().now - before)
        run.do(Ready(serial + 1))
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_who_served_for_longer_than_was_waited_for_it_begins_a_new_row() -> None:
    run = Run().serving()
    waits = []
    for serial in range(4):
        run.do(Exited(serial, ended("crash")))
        before = run.now
        waits.append(run.wait().now - before)
        run.do(Ready(serial + 1))
        run.now += waits[-1]
    assert waits == [0.5] * 4


def test_once_stable_the_failures_are_forgotten() -> None:
    run = Run().serving().do(Exited(0, ended("crash"))).wait().do(Ready(1))
    assert run.fleet.failures[0].count == 1
    assert run.wait().now == 10.5
    assert run.fleet.failures == {}


def test_a_stable_worker_that_falls_is_replaced_at_once() -> None:
    assert Run().serving().do(Exited(0, ended("killed by the kernel")), at=11.0).spawned == [(1, 0, 1)]


def test_an_old_worker_beside_a_failing_replacement_does_not_make_it_forgotten() -> None:
    run = Run().serving().do(Beat(0), at=20.0).do(RecycleDue(0), Exited(1, ended("crash")))
    assert run.wait().do(Exited(2, ended("crash"))).fleet.failures[0].count == 2
    assert run.ready == [0]


def test_jitter_spreads_the_waits_and_only_shortens_them() -> None:
    policy = Policy(backoff_initial=1.0, backoff_max=8.0, jitter=0.5, jitter_seed=0.3)
    waits = [policy.backoff(1, serial) for serial in range(8)]
    assert len(set(waits)) == 8
    assert all(0.5 < wait <= 1.0 for wait in waits)


def test_a_spawn_that_fails_backs_off_and_does_not_spin() -> None:
    run = Run().serving().do(SetSize(2), SpawnFailed(1, errno.EAGAIN))
    assert run.spawned == [(1, 1, 1)]
    assert run.do(Tick(), Tick()).actions == ()
    assert run.wait().spawned == [(2, 1, 1)]


def test_while_booting_spawning_is_tried_for_as_long_as_a_boot_may_take() -> None:
    run = Run().do(Tick())
    while run.fleet.state is FleetState.BOOTING:
        run.do(SpawnFailed(run.fleet.next_serial - 1, errno.EAGAIN))
        if run.fleet.state is FleetState.BOOTING:
            run.wait()
    assert run.actions == (Exit(3),)
    assert 60.0 <= run.now <= 64.0


def test_trap_an_expired_backoff_without_room_does_not_make_the_loop_spin() -> None:
    run = Run(surge=1).serving(4)
    run.do(SetSize(2), Exited(1, ended("crash")))  # 0 serves, 2 and 3 drain: no room
    assert run.wait().actions == ()
    assert run.now == 0.5
    assert next_deadline(run.fleet) == 8.0
    assert run.do(Exited(2)).spawned == [(4, 1, 1)]


# -- sizing ------------------------------------------------------------------------------------------------


def test_resizing_adds_and_drains_slots_and_never_goes_below_one() -> None:
    run = Run().serving()
    assert run.do(Resize(1)).spawned == [(1, 1, 1)]
    assert run.do(Ready(1), Resize(-1)).actions == (Drain(1, 8.0),)
    assert run.do(Resize(-1), SetSize(0)).fleet.size == 1
    assert run.ready == [0]


def test_processes_that_drain_leave_no_room_for_others() -> None:
    run = Run(surge=1).serving(4).do(SetSize(1), SetSize(4))
    assert run.spawned == [(4, 1, 1)]  # 1 ready, 3 drain, 1 starts: size + surge
    assert run.do(Exited(1)).spawned == [(5, 2, 1)]


# -- the module --------------------------------------------------------------------------------------------


def test_a_bad_policy_names_everything_that_is_wrong_with_it() -> None:
    with pytest.raises(
        ValueError, match="reap must be above 0; grace must be 0 or more; surge must be at least 1"
    ):
        Policy(reap=0, grace=-1, surge=0)


def test_a_step_leaves_the_fleet_it_was_given_alone() -> None:
    fleet = new_fleet(Policy())
    assert step(fleet, Tick(), 5.0) == step(fleet, Tick(), 5.0)
    assert fleet == new_fleet(Policy())


def test_importing_the_lifecycle_is_cheap() -> None:
    heavy = "{'asyncio', 'logging', 'socket', 'signal', 'subprocess'}"
    code = f"import sys, mooring.supervisor.lifecycle; print(*{heavy} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
