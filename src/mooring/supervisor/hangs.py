"""Watches the workers' heartbeats, and tells which workers move. The lifecycle decides what silence means.

An ASGI worker moves while its event loop beats. A WSGI worker moves while its process beats and not all of
its threads are busy with the same requests as at the last look, or a part of a body has passed since, or a
client has taken bytes: one slow request is no hang, and downloads that flow are none on all threads; requests
on all threads of which none moves are. An engine's arbiter watches its workers itself.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from mooring.scoreboard.row import BEAT, MOVES, TAKEN, Row
from mooring.supervisor import lifecycle
from mooring.supervisor.lifecycle import Worker, WorkerState
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.part import Part

_LATE = 0.5  # seconds; a look this much too late: the supervisor was frozen, and perhaps the workers too


class Sign(NamedTuple):
    """What was last seen of a worker: its `beat`, when the requests of its `busy` pool began (None: a thread
    is free), how far `bodies` were, and when it last moved (`at`). All but `bodies` in monotonic seconds.
    """

    beat: float
    busy: tuple[float, ...] | None
    bodies: tuple[float, float]
    at: float


class HangWatch(Part):
    """Looks at the rows of all ready workers, at intervals."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._next: float | None = None
        self._signs: dict[int, Sign] = {}

    def next_deadline(self) -> float | None:
        """When the next look is due (monotonic seconds); None while no worker is watched."""
        pause = self._pause
        if pause is None:
            self._next = None
        elif self._next is None:
            self._next = time.monotonic() + pause
        return self._next

    def expire(self) -> None:
        """Tell the lifecycle which workers have moved, before a deadline kills one of them."""
        due, now = lifecycle.next_deadline(self._supervisor.fleet), time.monotonic()
        if self._next is None or (now < self._next and (due is None or now < due)):
            return
        late = now - self._next > _LATE
        pause = self._pause
        self._next = None if pause is None else now + pause
        moved = [worker.serial for worker in self._ready() if self._moved(worker, now) or late]
        self._signs = {s: sign for s, sign in self._signs.items() if s in self._supervisor.fleet.workers}
        if moved:
            self._supervisor.post_first(lifecycle.Beats(tuple(moved)))

    def silent(self, serial: int, now: float) -> float:
        """Seconds since a worker was last seen to move."""
        sign = self._signs.get(serial)
        return now - sign.at if sign is not None else 0.0

    @property
    def _pause(self) -> float | None:
        """Seconds between two looks; None while no worker is watched."""
        timeouts = [t for worker in self._ready() if (t := worker.policy.heartbeat_timeout)]
        return min(2.0, min(timeouts) / 4) if timeouts else None

    def _ready(self) -> list[Worker]:
        return [w for w in self._supervisor.fleet.workers.values() if w.state is WorkerState.READY]

    def _moved(self, worker: Worker, now: float) -> bool:
        row = next(iter(self._supervisor.workers.scoreboard.rows.get(worker.serial, ())), None)
        handle = self._supervisor.workers.handles.get(worker.serial)
        report = handle.report if handle is not None else None
        if row is None or handle is None or report is None or report.has_arbiter:
            return True  # it has no row of its own: it counts as moving
        beat = row.read(BEAT)
        busy = _busy(row, handle.plan.threads) if report.interface == "wsgi" else None
        bodies = row.read(MOVES), row.read(TAKEN)
        sign, before = Sign(beat, busy, bodies, now), self._signs.get(worker.serial)
        if before is not None and (
            beat == before.beat or (busy is not None and (busy, bodies) == (before.busy, before.bodies))
        ):
            sign = sign._replace(at=before.at)
        self._signs[worker.serial] = sign
        return sign.at == now


def _busy(row: Row, threads: int) -> tuple[float, ...] | None:
    """When the oldest requests in flight began, one for each thread; None where there are fewer requests.

    Newer requests do not count: they may be about to be refused (MOORING_MAX_IN_FLIGHT).
    """
    began = row.began()
    return tuple(began[:threads]) if row.in_flight_count() >= threads else None
