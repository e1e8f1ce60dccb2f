"""Compares the fleet with what is wanted, and acts on the difference. Level-triggered: no event is missed.

Wanted is one ready worker of the wanted generation in each slot of the size, and no other. On the way:
- at most size + surge processes, draining and killed ones included: a spawn waits until there is room;
- a ready worker is drained only when a newer one of its slot is ready, or when its slot is beyond the size,
  or, where no further process fits, while all other slots serve: its replacement then starts after its end;
- empty slots come first, then the roll, then the recycling of one worker at a time;
- nothing is replaced before the surge was measured, and only one worker before the new generation is proven.
"""

from __future__ import annotations

from dataclasses import replace

from mooring.supervisor.lifecycle.cause import Cause
from mooring.supervisor.lifecycle.changes import begin_roll, may_roll
from mooring.supervisor.lifecycle.messages import Exit, Measure, Notice
from mooring.supervisor.lifecycle.model import Fleet, FleetState, Worker
from mooring.supervisor.lifecycle.table import Trigger, WorkerState
from mooring.supervisor.lifecycle.turn import LIVE, Turn

__all__ = ["reconcile"]


def reconcile(turn: Turn) -> None:
    """Do everything that can be done now to bring the fleet closer to what is wanted."""
    if turn.fleet.state is FleetState.STOPPING:
        _wind_down(turn)
    elif turn.running:
        _drain_unwanted(turn)
        _settle(turn)
        if may_roll(turn):
            begin_roll(turn)
            _drain_unwanted(turn)
        _spawn_missing(turn)
        _replace(turn)


# -- stopping ----------------------------------------------------------------------------------------------


def _wind_down(turn: Turn) -> None:
    fleet = turn.fleet
    due = fleet.drain_at is None or turn.now >= fleet.drain_at
    for worker in turn.in_state(*LIVE):
        # A starting worker has no requests yet: it need not wait for the drain delay.
        if due or worker.state is WorkerState.STARTING:
            turn.drain(worker, Trigger.STOPPING, Cause.STOPPING)
    if due:
        turn.fleet = replace(turn.fleet, drain_at=None)
    if not turn.workers and fleet.outcome is not None:
        turn.fleet = replace(turn.fleet, state=FleetState.STOPPED, drain_at=None)
        turn.announce(Notice.STOPPED, why=fleet.outcome.why, exit_code=fleet.outcome.exit_code)
        turn.actions.append(Exit(fleet.outcome.exit_code))


# -- taking away -------------------------------------------------------------------------------------------


def _drain_unwanted(turn: Turn) -> None:
    for slot, workers in turn.live().items():
        newest_ready = max((w.serial for w in workers if w.state is WorkerState.READY), default=-1)
        for worker in workers:
            if slot >= turn.fleet.size:
                turn.drain(worker, Trigger.BEYOND_SIZE, Cause.BEYOND_SIZE)
            elif worker.serial < newest_ready or _pointless(turn.fleet, worker, newest_ready >= 0):
                turn.drain(worker, Trigger.SUPERSEDED, _replaced(worker))


def _replaced(worker: Worker) -> Cause:
    """The cause of the drain of a worker that is replaced."""
    return Cause.RECYCLED if worker.stale else Cause.SUPERSEDED


def _pointless(fleet: Fleet, worker: Worker, slot_serves: bool) -> bool:
    """Whether this worker is of no use although no newer one of its slot is ready."""
    if worker.generation == fleet.generation:
        return False
    if _gone_first(fleet):
        return True
    # With overlap, a ready worker stays until it is replaced. A starting one is given up where its generation
    # was rolled back, or where it would only recycle a worker that the roll is about to replace anyway.
    rolled_back = worker.generation > fleet.generation
    return worker.state is WorkerState.STARTING and (rolled_back or slot_serves)


def _gone_first(fleet: Fleet) -> bool:
    """Whether the old workers must have ended before the new ones may start."""
    return not fleet.policy.overlap or fleet.state is FleetState.BOOTING


# -- arriving ----------------------------------------------------------------------------------------------


def _settle(turn: Turn) -> None:
    """End the booting, or the roll, once every slot serves."""
    fleet, slots = turn.fleet, turn.live()
    if fleet.state is FleetState.BOOTING:
        if all(_serves(fleet, workers) for workers in slots.values()):
            turn.fleet = replace(fleet, state=FleetState.SERVING)
            turn.announce(Notice.SERVING, generation=fleet.generation, size=fleet.size)
    elif fleet.state is FleetState.ROLLING:
        # The roll does not wait for an empty slot that backs off: it has no older worker, and is retried.
        arrived = all(
            _serves(fleet, workers) or (not workers and slot in turn.failures)
            for slot, workers in slots.items()
        )
        if fleet.proven and arrived:
            turn.fleet = replace(turn.fleet, state=FleetState.SERVING, previous=None, previous_policy=None)
            turn.announce(Notice.ROLLED, generation=fleet.generation)
    at_rest = turn.fleet.state is FleetState.SERVING and not any(w.stale for w in turn.workers.values())
    if at_rest and turn.fleet.surge != fleet.policy.surge:
        turn.fleet = replace(turn.fleet, surge=fleet.policy.surge, measured=False)


def _serves(fleet: Fleet, workers: list[Worker]) -> bool:
    return any(w.state is WorkerState.READY and w.generation == fleet.generation for w in workers)


# -- adding ------------------------------------------------------------------------------------------------


def _spawn_missing(turn: Turn) -> None:
    """Fill the empty slots."""
    fleet = turn.fleet
    older = any(worker.generation != fleet.generation for worker in turn.workers.values())
    if _gone_first(fleet) and older:
        return
    for slot, workers in turn.live().items():
        if not workers and _may_retry(turn, slot) and _room(turn) > 0:
            turn.spawn(slot)


def _room(turn: Turn) -> int:
    """How many more processes there may be: at a size of 1 always one, so its worker never drains first."""
    fleet = turn.fleet
    surge = max(1, fleet.surge) if fleet.size == 1 else fleet.surge
    return fleet.size + surge - len(turn.workers)


# -- replacing ---------------------------------------------------------------------------------------------


def _replace(turn: Turn) -> None:
    """Start the replacements of workers that serve, as far as the measured surge leaves room.

    With a surge of 0, make room: drain one worker first, while all others serve.
    """
    replaceable = _replaceable(turn)
    if not replaceable:
        return
    if not turn.fleet.measured:
        if not turn.fleet.measuring:
            turn.fleet = replace(turn.fleet, measuring=True)
            turn.actions.append(Measure())
        return
    retires = turn.fleet.surge == 0 and turn.fleet.size > 1
    for worker in replaceable[:1] if retires else replaceable:
        if not (_spared(turn, worker) if retires else _room(turn) > 0):
            return
        if turn.fleet.state is FleetState.SERVING:
            turn.announce(Notice.RECYCLING, serial=worker.serial, slot=worker.slot, why=worker.due)
        if retires:
            turn.failures.pop(worker.slot, None)  # else the roll would not wait for the empty slot
            turn.drain(worker, Trigger.NO_ROOM, _replaced(worker))
        else:
            turn.spawn(worker.slot)


def _replaceable(turn: Turn) -> list[Worker]:
    """The workers whose replacement may start now, the most urgent first; one at most in each slot."""
    fleet, live = turn.fleet, turn.live()
    slots = [workers for slot, workers in live.items() if workers and _may_retry(turn, slot)]
    if fleet.state is FleetState.ROLLING and not _gone_first(fleet):
        found = [workers[0] for workers in slots if _lacks_generation(fleet, workers)]
        if fleet.proven:
            return found
        # The first worker of a generation shows whether it can boot, and how much memory a worker takes.
        tried = any(w.generation == fleet.generation for workers in live.values() for w in workers)
        return [] if tried else found[:1]
    if fleet.state is FleetState.SERVING and not _recycling(turn):
        stale = [worker for workers in slots for worker in workers if worker.stale]
        return sorted(stale, key=lambda worker: worker.serial)[:1]
    return []


def _spared(turn: Turn, worker: Worker) -> bool:
    """Whether a worker may be drained first: every slot has a ready one, and there is no process too many."""
    ready = all(any(w.state is WorkerState.READY for w in workers) for workers in turn.live().values())
    return ready and worker.state is WorkerState.READY and len(turn.workers) <= turn.fleet.size


def _may_retry(turn: Turn, slot: int) -> bool:
    failures = turn.failures.get(slot)
    return failures is None or failures.retry_at is None


def _lacks_generation(fleet: Fleet, workers: list[Worker]) -> bool:
    """Whether a slot has live workers, starting or ready, but none of the wanted generation."""
    return bool(workers) and all(worker.generation != fleet.generation for worker in workers)


def _recycling(turn: Turn) -> bool:
    """Whether a replacement is starting, or a recycled worker still drains."""
    if any(len(workers) > 1 for workers in turn.live().values()):
        return True
    return any(worker.stale for worker in turn.in_state(WorkerState.DRAINING))
