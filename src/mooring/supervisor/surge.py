"""Measures how many workers above the size fit into memory while a roll or a recycle replaces workers.

The lifecycle asks before it replaces a worker, and decides what to do with the result (docs/lifecycle.md).
Measured are the memory limit with the least room, the memory in use under it, and the memory of one worker.
"""

from __future__ import annotations

from typing import NamedTuple

from mooring import resources
from mooring.resources import Room
from mooring.scoreboard.row import MEMORY
from mooring.supervisor.lifecycle import FleetState, Worker, WorkerState
from mooring.supervisor.loop import Supervisor
from mooring.system import process, units

_MOST = 1 << 60  # bytes; workers write the rows, so the values are not trusted


class Found(NamedTuple):
    """What was measured. `size`: the wanted workers; `processes`: the existing ones; `each`: bytes of one
    worker (0: not known); `growing`: bytes that starting workers will still take; `rooms`: the limits, each
    with the bytes in use.
    """

    size: int
    processes: int
    each: int
    growing: int
    rooms: list[Room]


class Manner(NamedTuple):
    """How workers are replaced: with `width` workers above the size, `how` in words, and `why`."""

    width: int
    how: str
    why: str


def decide(found: Found, headroom: int) -> Manner:
    """How many workers above the size fit into memory: from 0 up to the size.

    Half of the headroom (percent) that the plan leaves free may be used: the headroom is meant for this.
    """
    if not found.rooms:
        return _manner(found, found.size, "no memory limit is known")
    if not found.each:
        return _manner(found, 1, "it is not known what memory a worker takes")
    spare, room = min((_spare(room, found, headroom), room) for room in found.rooms)
    more = max(0, spare // found.each)
    width = min(found.size, max(0, found.processes + more - found.size))
    under = f"under the limit of {units.size(room.limit)} ({room.source})"
    if width >= found.size:
        return _manner(found, width, f"{found.size} x {units.size(found.each)} fit {under}")
    used = f"{units.size(room.used or 0)} are in use"
    if width:
        return _manner(found, width, f"{found.size} x {units.size(found.each)} do not fit {under}: {used}")
    return _manner(found, 0, f"not one more ({units.size(found.each)}) fits {under}: {used}")


def _spare(room: Room, found: Found, headroom: int) -> int:
    return room.limit * (200 - headroom) // 200 - (room.used or 0) - found.growing


def _manner(found: Found, width: int, why: str) -> Manner:
    if found.size == 1:
        how = "beside the old worker" + (", although it may not fit" if width == 0 else "")
    elif width >= found.size:
        how = "all at once"
    elif width == 0:
        how = "one by one, each drained before its replacement starts"
    else:
        how = "one by one" if width == 1 else f"{width} at a time"
    return Manner(width, how, why)


class SurgeMeasure:
    """Measures for one supervisor, and logs how its workers are replaced."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._roll = 0  # generation of the roll that was logged last
        self._width = 0  # that was logged for it
        self._warned = False  # whether a recycle's warning was logged

    def measure(self) -> int:
        """Return how many workers above the size fit now; log it, and keep it for /status."""
        supervisor = self._supervisor
        manner = decide(self._look(), supervisor.plan.settings.memory_headroom)
        if supervisor.fleet.state is FleetState.ROLLING:
            self._tell_roll(manner)
        else:
            self._tell_recycle(manner)
        return manner.width

    def _tell_roll(self, manner: Manner) -> None:
        """Log once for each roll, and again where fewer fit than before."""
        fleet = self._supervisor.fleet
        again = self._roll == fleet.generation
        if again and manner.width >= self._width:
            return
        self._supervisor.history.surge = manner._asdict()
        self._roll, self._width = fleet.generation, manner.width
        if manner.width == 0:
            self._supervisor.log.warning(f"rolls {manner.how}: {manner.why}")
        elif fleet.size > 1:
            self._supervisor.log.info(f"rolls {manner.how}: {manner.why}")

    def _tell_recycle(self, manner: Manner) -> None:
        """Warn where no further worker fits, once until there is room again."""
        self._supervisor.history.surge = manner._asdict()
        if manner.width == 0 and not self._warned:
            self._supervisor.log.warning(f"recycles {manner.how}: {manner.why}")
        self._warned = manner.width == 0

    # -- measuring -----------------------------------------------------------------------------------------

    def _look(self) -> Found:
        workers = list(self._supervisor.fleet.workers.values())
        each = self._each([worker for worker in workers if worker.state is WorkerState.READY])
        starting = [worker for worker in workers if worker.state is WorkerState.STARTING]
        growing = sum(max(0, each - self._now(worker)) for worker in starting)
        rooms = resources.memory_rooms()
        if any(room.used is None for room in rooms):
            used = sum(self._memory(worker) for worker in workers) + (process.proportional_set_size() or 0)
            rooms = [room if room.used is not None else room._replace(used=used) for room in rooms]
        return Found(self._supervisor.fleet.size, len(workers), each, growing, rooms)

    def _each(self, ready: list[Worker]) -> int:
        """Bytes of one worker of the newest generation: the least in use now, or the most after a start."""
        newest = max((worker.generation for worker in ready), default=0)
        same = [worker for worker in ready if worker.generation == newest]
        return max(
            max((self._fresh(worker) for worker in same), default=0),
            min((self._memory(worker) for worker in same), default=0),
        )

    def _fresh(self, worker: Worker) -> int:
        handle = self._supervisor.workers.handles.get(worker.serial)
        return (handle.report.memory if handle is not None and handle.report is not None else 0) or 0

    def _memory(self, worker: Worker) -> int:
        """Bytes, from the worker's rows: an engine's arbiter has several."""
        rows = self._supervisor.workers.scoreboard.rows.get(worker.serial, ())
        return sum(min(int(row.read(MEMORY)), _MOST) for row in rows)

    def _now(self, worker: Worker) -> int:
        handle = self._supervisor.workers.handles.get(worker.serial)
        return (process.proportional_set_size(str(handle.pid)) if handle is not None else 0) or 0
