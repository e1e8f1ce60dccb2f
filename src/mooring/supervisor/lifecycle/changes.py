"""Changes of the fleet as a whole after an event: fail, back off, resize, roll, roll back, stop."""

from __future__ import annotations

import math
from dataclasses import replace

from mooring.supervisor.lifecycle.cause import Cause, Reason
from mooring.supervisor.lifecycle.messages import Notice
from mooring.supervisor.lifecycle.model import Failures, FleetState, Outcome, Policy, StopReason, Worker
from mooring.supervisor.lifecycle.table import Trigger, WorkerState
from mooring.supervisor.lifecycle.turn import Turn

__all__ = [
    "begin_roll",
    "begin_stop",
    "failed",
    "may_roll",
    "resize",
    "roll_asked",
    "spawn_failed",
    "stop_now",
    "surge",
]

BOOT_FAILURE_EXIT = 3
"""The documented exit code of an application that cannot boot, where the worker gave none."""


# -- failing -----------------------------------------------------------------------------------------------


def failed(turn: Turn, worker: Worker, why: Reason, exit_code: int = BOOT_FAILURE_EXIT) -> None:
    """React to a worker that failed while it was starting or ready.

    While the fleet is booting, a boot failure stops it. While it is rolling, a boot failure ends the roll if
    no worker of the new generation has been ready. After any other failure the worker's slot backs off, and
    the other workers keep serving.
    """
    fleet = turn.fleet
    if not turn.running:
        return
    boot = worker.state is WorkerState.STARTING
    if boot and fleet.state is FleetState.BOOTING and fleet.policy.boot_failures_fatal:
        _boot_failed(turn, worker, why, exit_code)
        return
    rolling = fleet.state is FleetState.ROLLING
    older = worker.generation < fleet.generation
    # While rolling, retry an older worker, and one of a proven generation: otherwise the roll never ends.
    waits = boot and not older and not fleet.policy.boot_failures_fatal and not (rolling and fleet.proven)
    if boot and not older and rolling and not fleet.proven:
        _roll_failed(turn, why)
    _back_off(turn, worker, why, waits=waits)


def spawn_failed(turn: Turn, worker: Worker, why: Reason) -> None:
    """React to a spawn that the system refused: back off, since the application is not at fault.

    While the fleet is booting, this becomes a boot failure after `boot_timeout` seconds.
    """
    fleet = turn.fleet
    if not turn.running or worker.state is not WorkerState.STARTING:
        return
    before = turn.failures.get(worker.slot)
    trying = turn.now - before.first_at if before else 0.0
    fatal = fleet.state is FleetState.BOOTING and fleet.policy.boot_failures_fatal
    if fatal and trying >= fleet.policy.boot_timeout:
        _boot_failed(turn, worker, why, BOOT_FAILURE_EXIT)
    else:
        _back_off(turn, worker, why)


def _boot_failed(turn: Turn, worker: Worker, why: Reason, exit_code: int) -> None:
    turn.announce(Notice.BOOT_FAILED, serial=worker.serial, slot=worker.slot, why=why, exit_code=exit_code)
    begin_stop(turn, Outcome(StopReason.BOOT_FAILED, exit_code, why, worker.serial))


def _back_off(turn: Turn, worker: Worker, why: Reason, *, waits: bool = False) -> None:
    policy, now, slot = turn.fleet.policy, turn.now, worker.slot
    if worker.ready_at is not None and now - worker.ready_at >= policy.stable_after:
        turn.failures.pop(slot, None)
        return  # it was ready for long enough: it is replaced at once
    before = turn.failures.get(slot)
    if before and _paid_off(turn, worker, before):
        before = None
    count = before.count + 1 if before else 1
    seconds = math.inf if waits else policy.backoff(count, worker.serial)
    first_at = before.first_at if before else now
    turn.failures[slot] = Failures(count, first_at, last_at=now, retry_at=now + seconds)
    turn.announce(Notice.BACKOFF, slot=slot, seconds=seconds, failures=count, why=why)


def _paid_off(turn: Turn, worker: Worker, before: Failures) -> bool:
    """Whether a worker has served for longer than its slot had waited for it.

    Then its slot's count starts again: where workers are killed now and then, waits that double would cost
    the fleet more than the kills do.
    """
    ready_at = worker.ready_at
    if ready_at is None or ready_at < before.last_at:
        return False
    return turn.now - ready_at >= turn.fleet.policy.longest_wait(before.count)


# -- sizing ------------------------------------------------------------------------------------------------


def resize(turn: Turn, size: int) -> None:
    """Set the wanted number of workers, at least one; `reconcile` then starts or drains workers."""
    previous, size = turn.fleet.size, max(1, size)
    if size == previous or not turn.running:
        return
    turn.fleet = replace(turn.fleet, size=size, measured=False)
    for slot in [slot for slot in turn.failures if slot >= size]:
        del turn.failures[slot]
    turn.announce(Notice.RESIZED, size=size, previous=previous)


# -- rolling -----------------------------------------------------------------------------------------------


def roll_asked(turn: Turn, policy: Policy | None = None) -> None:
    """Roll now, or once more after the present roll has ended, however often that was asked.

    Without overlap, or while `mooring dev` is booting, the new roll replaces the present one at once.
    """
    fleet = turn.fleet
    if not turn.running:
        return
    booting = fleet.state is FleetState.BOOTING
    turn.fleet = fleet = replace(fleet, next_policy=policy or fleet.next_policy)
    if not fleet.policy.overlap or (booting and not fleet.policy.boot_failures_fatal):
        begin_roll(turn)
        return
    turn.fleet = replace(fleet, queued=True)
    if not fleet.queued and not may_roll(turn):
        turn.announce(Notice.ROLL_QUEUED, generation=fleet.generation)


def may_roll(turn: Turn) -> bool:
    """Whether a queued roll may begin: the fleet serves, and not too many generations are still draining."""
    fleet = turn.fleet
    draining = {worker.generation for worker in turn.in_state(WorkerState.DRAINING)} - {fleet.generation}
    serving = fleet.state is FleetState.SERVING
    return fleet.queued and serving and len(draining) < fleet.policy.max_draining_generations


def begin_roll(turn: Turn) -> None:
    """Want a new generation. All failures are forgotten: a roll usually brings changed code or settings."""
    fleet = turn.fleet
    booting = fleet.state is FleetState.BOOTING
    back = fleet.policy.overlap and not booting
    turn.failures.clear()
    turn.fleet = replace(
        fleet,
        state=FleetState.BOOTING if booting else FleetState.ROLLING,
        generation=fleet.next_generation,
        next_generation=fleet.next_generation + 1,
        previous=fleet.generation if back else None,
        policy=fleet.next_policy or fleet.policy,
        previous_policy=fleet.policy if back else None,
        next_policy=None,
        proven=False,
        queued=False,
        surge=(fleet.next_policy or fleet.policy).surge,
        measured=False,
    )
    turn.announce(Notice.ROLLING, generation=fleet.next_generation, previous=fleet.generation)


def _roll_failed(turn: Turn, why: Reason) -> None:
    fleet = turn.fleet
    back = fleet.previous if fleet.previous is not None else fleet.generation
    turn.fleet = replace(
        fleet,
        state=FleetState.SERVING,
        generation=back,
        previous=None,
        policy=fleet.previous_policy or fleet.policy,
        previous_policy=None,
    )
    rolled_back = back != fleet.generation
    turn.announce(
        Notice.ROLL_FAILED, failed=fleet.generation, generation=back, why=why, rolled_back=rolled_back
    )


# -- measuring ---------------------------------------------------------------------------------------------


def surge(turn: Turn, width: int) -> None:
    """Take the result of a measurement; ignore a result that is not, or no longer, awaited."""
    if turn.running and turn.fleet.measuring:
        turn.fleet = replace(turn.fleet, surge=max(0, width), measured=True, measuring=False)


# -- stopping ----------------------------------------------------------------------------------------------


def begin_stop(turn: Turn, outcome: Outcome) -> None:
    """Begin to stop, once: a later reason changes neither the deadline nor the exit code.

    The stop's deadline also caps workers that drain already, and those with a longer grace period.
    """
    fleet, policy = turn.fleet, turn.fleet.in_force
    if not turn.running:
        return
    delay = policy.drain_delay if outcome.reason is StopReason.ASKED else 0.0
    deadline = turn.now + delay + policy.grace
    turn.fleet = replace(
        fleet,
        state=FleetState.STOPPING,
        queued=False,
        next_policy=None,
        previous=None,
        policy=policy,
        previous_policy=None,
        drain_at=turn.now + delay,
        stop_deadline=deadline,
        outcome=outcome,
    )
    turn.failures.clear()
    turn.cap(deadline)
    turn.announce(Notice.STOPPING, why=outcome.why, seconds=deadline - turn.now, exit_code=outcome.exit_code)


def stop_now(turn: Turn) -> None:
    """Kill all workers that are left."""
    for worker in list(turn.workers.values()):
        if turn.can(worker, Trigger.STOP_NOW):
            turn.kill(worker, Trigger.STOP_NOW, Cause.STOP_NOW)
