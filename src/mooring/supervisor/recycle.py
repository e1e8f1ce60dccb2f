"""When a worker is due to be recycled: its requests, its age, its memory. Watched on the supervisor's side.

Here it is only said that one is due, and why. That its replacement is ready first, and that no two go at
once, is the lifecycle's. Not for an engine that recycles its workers itself, as gunicorn's arbiter does.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from mooring.plan.plan import Plan
from mooring.scoreboard.row import COUNTS, HISTOGRAM, MEMORY, Row
from mooring.settings import engines
from mooring.supervisor import lifecycle
from mooring.supervisor.lifecycle import WorkerState
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.part import Part
from mooring.system import units
from mooring.worker.seat import SAMPLE

LOOK = 0.5  # seconds from one look at requests and ages to the next
LOOK_MEMORY = SAMPLE * 1.25  # later than the worker's next sample, so that each look sees another one
SAMPLES = 3  # above the limit, in a row
_AGE_SPREAD = 0.1  # of the age, that a worker may be younger: workers that started together end apart
_GOLDEN = 0.6180339887498949


class Limits(NamedTuple):
    """What a worker may come to: requests, up to `spread` more of them, seconds, bytes; 0 is no limit."""

    requests: int
    spread: int
    age: float
    memory: int


def limits(plan: Plan) -> Limits:
    """The limits of a plan: none with live reload, nor where its engine recycles itself."""
    settings = plan.settings
    if settings.reload or engines.row(plan.engine).recycles_itself:
        return Limits(0, 0, 0.0, 0)
    spread = settings.max_requests_jitter
    requests = settings.max_requests
    return Limits(
        requests, requests // 10 if spread is None else spread, settings.max_worker_age, memory_limit(plan)
    )


def memory_limit(plan: Plan) -> int:
    """Bytes; a share is of the memory that the container, or else the machine, has. 0: none, or unknown."""
    most = plan.settings.max_worker_memory
    if most is None or isinstance(most, int):
        return most or 0
    found = plan.resources
    whole = found.memory_limit.value or found.host_memory.value or 0
    return int(whole * float(most.rstrip("%")) / 100)


def why(most: Limits, serial: int, requests: int, age: float) -> str:
    """Why a worker is due for its requests or its age; empty where it isn't. The same one has always the same
    share of the spread, and no neighbours have the same.
    """
    share = serial * _GOLDEN % 1
    if most.requests and requests >= most.requests + int(share * most.spread):
        return f"{requests} requests"
    if most.age and age >= most.age * (1 - _AGE_SPREAD * share):
        return f"{age:.0f} s old"
    return ""


class Recycler(Part):
    """Keeps watch over all workers."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._next = self._next_memory = 0.0
        self._above: dict[int, int] = {}  # looks in a row at which a worker had too much memory
        self._said: set[str] = set()

    def next_deadline(self) -> float | None:
        """The next look; None where there is nothing to limit."""
        most = limits(self._supervisor.plan)
        times = [self._next] if most.requests or most.age else []
        times += [self._next_memory] if most.memory else []
        return min(times, default=None)

    def expire(self) -> None:
        """Look, where it is time, and tell the lifecycle who is due."""
        plan, now = self._supervisor.plan, time.monotonic()
        most = limits(plan)
        self._complain(plan)
        memory = bool(most.memory) and now >= self._next_memory
        if memory:
            self._next_memory = now + LOOK_MEMORY
        counted = bool(most.requests or most.age) and now >= self._next
        if counted:
            self._next = now + LOOK
        if not (memory or counted):
            return
        for worker in self._supervisor.fleet.workers.values():
            if worker.state is not WorkerState.READY or worker.stale:
                continue
            row = next(iter(self._supervisor.workers.scoreboard.rows.get(worker.serial, ())), None)
            due = ""
            if counted:
                ready_at = now if worker.ready_at is None else worker.ready_at
                due = why(most, worker.serial, _requests(row), now - ready_at)
            if memory and row is not None:
                due = self._too_large(worker.serial, int(row.read(MEMORY)), most.memory) or due
            if due:
                self._supervisor.post(lifecycle.RecycleDue(worker.serial, due))
        self._above = {s: n for s, n in self._above.items() if s in self._supervisor.fleet.workers}

    def _too_large(self, serial: int, memory: int, most: int) -> str:
        """Why a worker is due for its memory, after so many samples; empty where it isn't."""
        if memory <= most:
            self._above.pop(serial, None)
            return ""
        handle = self._supervisor.workers.handles.get(serial)
        fresh = handle.report.memory if handle is not None and handle.report is not None else None
        if fresh is not None and fresh > most:  # so will be its successor
            self._say(
                f"MOORING_MAX_WORKER_MEMORY is {units.size(most)}, but a worker that has just started has "
                f"{units.size(fresh)}: it isn't recycled for its memory"
            )
            return ""
        self._above[serial] = self._above.get(serial, 0) + 1
        if self._above[serial] < SAMPLES:
            return ""
        return f"{units.size(memory)} of memory, more than {units.size(most)}"

    def _complain(self, plan: Plan) -> None:
        settings = plan.settings
        given = bool(settings.max_worker_age) or settings.max_worker_memory is not None
        if given and engines.row(plan.engine).recycles_itself:
            self._say(
                "MOORING_MAX_WORKER_AGE and MOORING_MAX_WORKER_MEMORY have no effect: "
                f"{plan.engine}'s arbiter recycles its workers by their requests alone"
            )

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said = {*list(self._said)[-8:], text}
            self._supervisor.log.warning(text)


def _requests(row: Row | None) -> int:
    return int(sum(row.counts()[COUNTS:HISTOGRAM])) if row is not None else 0
