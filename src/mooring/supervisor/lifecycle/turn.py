"""One step while it is computed: a private, mutable copy of the fleet, and the actions so far.

The moves of a single worker, each one looked up in the table. Not for what the fleet wants: changes.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from mooring.supervisor.lifecycle.cause import Cause, Reason
from mooring.supervisor.lifecycle.messages import Action, Announce, Drain, Kill, Notice, Spawn
from mooring.supervisor.lifecycle.model import Failures, Fleet, FleetState, Worker
from mooring.supervisor.lifecycle.table import NEXT, Trigger, WorkerState

__all__ = ["Turn"]

LIVE = (WorkerState.STARTING, WorkerState.READY)


class Turn:
    """The fleet while one step works on it; `freeze` makes a `Fleet` of it again."""

    __slots__ = ("actions", "failures", "fleet", "now", "workers")

    def __init__(self, fleet: Fleet, now: float) -> None:
        self.fleet = fleet
        self.now = now
        self.workers: dict[int, Worker] = dict(fleet.workers)
        self.failures: dict[int, Failures] = dict(fleet.failures)
        self.actions: list[Action] = []

    def freeze(self) -> Fleet:
        """Return what the fleet has become; what did not change is shared with the one before."""
        fleet = self.fleet
        workers = fleet.workers if self.workers == fleet.workers else MappingProxyType(self.workers)
        failures = fleet.failures if self.failures == fleet.failures else MappingProxyType(self.failures)
        return replace(fleet, workers=workers, failures=failures)

    def announce(self, kind: Notice, **data: object) -> None:
        """Add a notice for the log and /status."""
        self.actions.append(Announce(kind, data))

    # -- looking -------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the fleet has not begun to stop."""
        return self.fleet.state not in (FleetState.STOPPING, FleetState.STOPPED)

    def in_state(self, *states: WorkerState) -> list[Worker]:
        """Return the workers in one of these states, the oldest first."""
        return [worker for worker in self.workers.values() if worker.state in states]

    def live(self) -> dict[int, list[Worker]]:
        """Return the starting and ready workers by slot, oldest first; every slot of the size has a key."""
        slots: dict[int, list[Worker]] = {slot: [] for slot in range(self.fleet.size)}
        for worker in self.in_state(*LIVE):
            slots.setdefault(worker.slot, []).append(worker)
        return slots

    # -- moving one worker ---------------------------------------------------------------------------------

    def can(self, worker: Worker | None, trigger: Trigger) -> bool:
        """Whether the table has a row for this; if it has none, the event came too late."""
        return worker is not None and (worker.state, trigger) in NEXT

    def spawn(self, slot: int) -> None:
        """Start a worker of the wanted generation in this slot."""
        fleet, now = self.fleet, self.now
        serial, state = fleet.next_serial, NEXT[None, Trigger.WANTED]
        assert state is not None
        deadline = now + fleet.policy.boot_timeout
        self.workers[serial] = Worker(
            serial, slot, fleet.generation, state, now, deadline, spawned_at=now, policy=fleet.policy
        )
        self.fleet = replace(fleet, next_serial=serial + 1)
        self.actions.append(Spawn(serial, slot, fleet.generation))
        self.announce(Notice.SPAWNED, serial=serial, slot=slot, generation=fleet.generation)

    def ready(self, worker: Worker) -> None:
        """Note that a worker is ready; this proves its generation."""
        self._move(worker, Trigger.READY, self._heartbeat_deadline(worker), ready_at=self.now)
        if worker.generation == self.fleet.generation:
            # At once: another worker's boot failure in the same step must not roll this generation back.
            self.fleet = replace(self.fleet, proven=True)
        self.measure_anew()  # the worker's memory is known now
        seconds = self.now - worker.spawned_at
        who = {"serial": worker.serial, "slot": worker.slot, "generation": worker.generation}
        self.announce(Notice.READY, **who, seconds=seconds)

    def beat(self, worker: Worker) -> None:
        """Renew a ready worker's heartbeat deadline."""
        self.workers[worker.serial] = replace(worker, deadline=self._heartbeat_deadline(worker))

    def recycle_due(self, worker: Worker, why: str) -> None:
        """Note that a ready worker is to be replaced."""
        self.workers[worker.serial] = replace(worker, due=why, stale=True)
        self.measure_anew()

    def drain(self, worker: Worker, trigger: Trigger, cause: Cause) -> None:
        """Drain a live worker, for the grace period or until the stop's deadline."""
        stop = self.fleet.stop_deadline
        deadline = self.now + worker.policy.grace if stop is None else stop
        self._move(worker, trigger, deadline, ordered=cause)
        self.actions.append(Drain(worker.serial, deadline))
        who = {"serial": worker.serial, "slot": worker.slot, "generation": worker.generation}
        self.announce(Notice.DRAINING, **who, why=Reason(cause), seconds=deadline - self.now)

    def cap(self, deadline: float) -> None:
        """Let no drain last longer than until this deadline."""
        for worker in self.in_state(WorkerState.DRAINING):
            if worker.deadline is not None and worker.deadline > deadline:
                self.workers[worker.serial] = replace(worker, deadline=deadline)

    def kill(self, worker: Worker, trigger: Trigger, cause: Cause) -> None:
        """Kill a worker, for the first time or again; the next kill is due in `reap` seconds."""
        self._move(worker, trigger, self.now + self.fleet.policy.reap, ordered=cause)
        self.actions.append(Kill(worker.serial, cause))

    def gone(self, worker: Worker, why: Reason, *, failed: bool) -> None:
        """Forget a worker that has no process any more."""
        del self.workers[worker.serial]
        self.measure_anew()
        who = {"serial": worker.serial, "slot": worker.slot, "generation": worker.generation}
        how = {"state": worker.state, "why": why, "failed": failed, "ordered": worker.ordered}
        self.announce(Notice.EXITED, **who, **how)

    def renew(self, workers: Iterable[Worker]) -> None:
        """Start the deadlines of live workers again."""
        for worker in workers:
            boot = self.now + worker.policy.boot_timeout
            deadline = boot if worker.state is WorkerState.STARTING else self._heartbeat_deadline(worker)
            self.workers[worker.serial] = replace(worker, deadline=deadline)

    def forget_backoff(self, slot: int) -> None:
        """Let the slot be tried again; how often it failed is remembered."""
        self.failures[slot] = replace(self.failures[slot], retry_at=None)

    def measure_anew(self) -> None:
        """Let the surge be measured again before anything else is replaced."""
        self.fleet = replace(self.fleet, measured=False)

    def _heartbeat_deadline(self, worker: Worker) -> float | None:
        timeout = worker.policy.heartbeat_timeout
        return self.now + timeout if timeout else None

    def _move(
        self,
        worker: Worker,
        trigger: Trigger,
        deadline: float | None,
        ready_at: float | None = None,
        ordered: Cause | None = None,
    ) -> None:
        state = NEXT[worker.state, trigger]
        assert state is not None
        since = worker.since if state is worker.state else self.now
        self.workers[worker.serial] = replace(
            worker,
            state=state,
            since=since,
            deadline=deadline,
            ready_at=ready_at if ready_at is not None else worker.ready_at,
            ordered=ordered or worker.ordered,
        )
