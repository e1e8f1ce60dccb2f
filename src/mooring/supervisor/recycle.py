"""Decides when a worker is due to be recycled: by its requests, its age or its memory.

This module only tells the lifecycle which worker is due, and why. The lifecycle replaces due workers one at a
time. Not for an engine that recycles its workers itself, as an engine's arbiter does.
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
from mooring.worker.memory import SAMPLE

LOOK = 0.5  # seconds between two looks at requests and ages
LOOK_MEMORY = SAMPLE * 1.25  # longer than the worker's sampling interval, so that each look sees a new sample
SAMPLES = 3  # in a row above the limit, before a worker is due
_AGE_SPREAD = 0.1  # share of the age limit by which a worker may go earlier: so not all go at once
_GOLDEN = 0.6180339887498949  # the golden ratio's fraction: its multiples, modulo 1, spread evenly


class Limits(NamedTuple):
    """A worker's limits: `requests` plus up to `spread`, `age` in seconds, `memory` in bytes; 0: no limit."""

    requests: int
    spread: int
    age: float
    memory: int


def limits(plan: Plan) -> Limits:
    """A plan's limits; all are 0 with live reload, and where the engine recycles its workers itself."""
    settings = plan.settings
    if settings.reload or engines.row(plan.engine).recycles_itself:
        return Limits(0, 0, 0.0, 0)
    spread = settings.max_requests_jitter
    requests = settings.max_requests
    return Limits(
        requests, requests // 10 if spread is None else spread, settings.max_worker_age, memory_limit(plan)
    )


def memory_limit(plan: Plan) -> int:
    """A worker's memory limit in bytes; 0: none, or unknown.

    A percentage is of the container's memory limit or, without one, of the machine's memory.
    """
    most = plan.settings.max_worker_memory
    if most is None or isinstance(most, int):
        return most or 0
    found = plan.resources
    whole = found.memory_limit.value or found.host_memory.value or 0
    return int(whole * float(most.rstrip("%")) / 100)


def why(most: Limits, serial: int, requests: int, age: float) -> str:
    """Why a worker is due by its requests or its age; empty where it is not.

    Its share of the spread follows from its serial number: always the same, and never that of a neighbour.
    """
    share = serial * _GOLDEN % 1
    if most.requests and requests >= most.requests + int(share * most.spread):
        return f"{requests} requests"
    if most.age and age >= most.age * (1 - _AGE_SPREAD * share):
        return f"{age:.0f} s old"
    return ""


class Recycler(Part):
    """Compares all workers with the limits, at intervals."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._next = self._next_memory = 0.0
        self._above: dict[int, int] = {}  # by serial: looks in a row above the memory limit
        self._said: set[str] = set()

    def next_deadline(self) -> float | None:
        """When the next look is due (monotonic seconds); None where the plan sets no limit."""
        most = limits(self._supervisor.plan)
        times = [self._next] if most.requests or most.age else []
        times += [self._next_memory] if most.memory else []
        return min(times, default=None)

    def expire(self) -> None:
        """If a look is due, look at the workers, and tell the lifecycle which ones to recycle."""
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
        """Why a worker is due by its memory, after SAMPLES looks above the limit; empty where it is not."""
        if memory <= most:
            self._above.pop(serial, None)
            return ""
        handle = self._supervisor.workers.handles.get(serial)
        fresh = handle.report.memory if handle is not None and handle.report is not None else None
        if fresh is not None and fresh > most:  # a replacement would also be
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
