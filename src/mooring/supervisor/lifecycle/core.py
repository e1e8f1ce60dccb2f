"""The two functions that the shell calls: `step`, and `next_deadline` for how long it may sleep."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from mooring.supervisor.lifecycle.cause import Cause, Reason
from mooring.supervisor.lifecycle.changes import (
    BOOT_FAILURE_EXIT,
    begin_stop,
    failed,
    resize,
    roll_asked,
    spawn_failed,
    stop_now,
    surge,
)
from mooring.supervisor.lifecycle.messages import (
    Action,
    Beat,
    Beats,
    Event,
    Exited,
    Notice,
    Ready,
    RecycleDue,
    Resize,
    Roll,
    SetSize,
    SpawnFailed,
    Stop,
    StopNow,
    Surge,
)
from mooring.supervisor.lifecycle.model import Failures, Fleet, Outcome, StopReason, Worker
from mooring.supervisor.lifecycle.reconcile import reconcile
from mooring.supervisor.lifecycle.table import Trigger, WorkerState
from mooring.supervisor.lifecycle.turn import LIVE, Turn

__all__ = ["next_deadline", "step"]

PAUSE = 2.0
"""Seconds. A step this much after its deadline means that the supervisor was frozen: no worker has hung."""

DEADLINES = {
    WorkerState.STARTING: "boot",
    WorkerState.READY: "heartbeat",
    WorkerState.DRAINING: "grace",
    WorkerState.KILLED: "reap",
}

MISSED = {
    WorkerState.STARTING: Cause.BOOT_DEADLINE,
    WorkerState.READY: Cause.HEARTBEAT_DEADLINE,
    WorkerState.DRAINING: Cause.GRACE_DEADLINE,
}
"""Why a worker is killed at its deadline. A repeated kill keeps the cause of the first one."""


def step(fleet: Fleet, event: Event, now: float) -> tuple[Fleet, tuple[Action, ...]]:
    """Return the fleet after the event, and what the shell has to do, in this order.

    `now` is a monotonic clock in seconds, never earlier than in the step before. Every step reacts to the
    event, expires what is due, then reconciles; so a `Tick` is enough whenever `next_deadline` has come. Late
    events and unknown serials change nothing. Nothing changes any more once `Exit` was returned.
    """
    turn = Turn(fleet, now)
    _forgive_pause(turn)
    _react(turn, event)
    _expire(turn)
    reconcile(turn)
    return turn.freeze(), tuple(turn.actions)


def next_deadline(fleet: Fleet) -> float | None:
    """Return when a `Tick` is due at the latest; None: not before another event.

    After a step at `now` it is later than `now`, unless that step gave actions (a grace of 0 ends at once).
    """
    times = [worker.deadline for worker in fleet.workers.values() if worker.deadline is not None]
    times += [f.retry_at for f in fleet.failures.values() if f.retry_at is not None and f.retry_at < math.inf]
    times += [_stable_at(fleet, worker) for worker in _recovering(fleet.workers, fleet.failures)]
    if fleet.drain_at is not None:
        times.append(fleet.drain_at)
    return min(times, default=None)


# -- react -------------------------------------------------------------------------------------------------


def _react(turn: Turn, event: Event) -> None:
    match event:
        case Ready(serial) | Beat(serial) | RecycleDue(serial) | SpawnFailed(serial) | Exited(serial):
            worker = turn.workers.get(serial)
            if worker is not None:
                _react_to_worker(turn, worker, event)
        case Beats(serials):
            for worker in [turn.workers[serial] for serial in serials if serial in turn.workers]:
                _react_to_worker(turn, worker, Beat(worker.serial))
        case Surge(width):
            surge(turn, width)
        case _:
            _react_to_user(turn, event)


def _react_to_user(turn: Turn, event: Event) -> None:
    match event:
        case Resize(delta):
            resize(turn, turn.fleet.size + delta)
        case SetSize(size):
            resize(turn, size)
        case Roll(policy):
            roll_asked(turn, policy)
        case Stop():
            begin_stop(turn, Outcome(StopReason.ASKED, 0, Reason(Cause.STOP_ASKED)))
        case StopNow():
            begin_stop(turn, Outcome(StopReason.ASKED, 0, Reason(Cause.STOP_NOW)))
            stop_now(turn)


def _react_to_worker(turn: Turn, worker: Worker, event: Event) -> None:
    match event:
        case Ready() if turn.can(worker, Trigger.READY):
            turn.ready(worker)
        case Beat() if turn.can(worker, Trigger.BEAT):
            turn.beat(worker)
        case RecycleDue(_, why) if turn.can(worker, Trigger.RECYCLE_DUE):
            turn.recycle_due(worker, why)
        case SpawnFailed(_, errno) if turn.can(worker, Trigger.SPAWN_FAILED):
            why = Reason(Cause.NOT_SPAWNED, os.strerror(errno))
            turn.gone(worker, why, failed=worker.state in LIVE)
            spawn_failed(turn, worker, why)
        case Exited(_, why, exit_code, fatal):
            turn.gone(worker, why, failed=worker.state in LIVE)
            if worker.state in LIVE:
                failed(turn, worker, why, (exit_code if fatal else None) or BOOT_FAILURE_EXIT)


# -- expire ------------------------------------------------------------------------------------------------


def _expire(turn: Turn) -> None:
    now = turn.now
    for worker in list(turn.workers.values()):
        if worker.deadline is not None and worker.deadline <= now:
            _deadline_passed(turn, worker)
    for slot, failures in list(turn.failures.items()):
        # Also where the spawn must still wait for something else: a time that has passed wakes the loop once.
        if failures.retry_at is not None and failures.retry_at <= now:
            turn.forget_backoff(slot)
    for worker in _recovering(turn.workers, turn.failures):
        if _stable_at(turn.fleet, worker) <= now:
            turn.failures.pop(worker.slot, None)


def _deadline_passed(turn: Turn, worker: Worker) -> None:
    deadline = DEADLINES[worker.state]
    turn.announce(Notice.DEADLINE, serial=worker.serial, slot=worker.slot, deadline=deadline)
    cause = worker.ordered if worker.state is WorkerState.KILLED else MISSED[worker.state]
    assert cause is not None
    turn.kill(worker, Trigger.DEADLINE, cause)
    if worker.state in LIVE:
        failed(turn, worker, Reason(cause))


def _recovering(workers: Mapping[int, Worker], failing: Mapping[int, Failures]) -> list[Worker]:
    """Return the ready workers that became ready after their slot's last failure.

    An older worker that serves beside a failing replacement proves nothing about the replacement.
    """
    found = []
    for worker in workers.values() if failing else ():
        failures = failing.get(worker.slot)
        if failures and worker.state is WorkerState.READY and (worker.ready_at or 0.0) >= failures.last_at:
            found.append(worker)
    return found


def _stable_at(fleet: Fleet, worker: Worker) -> float:
    return (worker.ready_at or 0.0) + fleet.policy.stable_after


def _forgive_pause(turn: Turn) -> None:
    """Renew the live workers' deadlines after a freeze (docker pause, for example): they were frozen too."""
    due = next_deadline(turn.fleet)
    if due is not None and turn.now - due > PAUSE:
        turn.renew(turn.in_state(*LIVE))
