"""A worker's place in shared memory: which rows and rings are its own. Also how it takes its place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container
from typing import NamedTuple

from mooring.scoreboard.ring import Write, writer
from mooring.scoreboard.row import DRAINING, FREE, GONE, MEMORY, READY, STATE, Board, Row
from mooring.system import process
from mooring.system.unpatched import native

LOOK, SAMPLE = 10.0, 2.0  # seconds from one look at the worker's own memory to the next; where it is limited


class Seat(NamedTuple):
    """What a worker is given: slot and generation, the scoreboard, its rows (several for gunicorn's arbiter;
    none where there are none left), the rings and their eventfd (None: no access log). A row's ring has its
    index.
    """

    slot: int
    generation: int
    board: int
    rows: tuple[int, ...]
    rings: int | None
    wake: int | None
    stacks: int = -1  # a file in memory for the stacks of a worker that hangs; below 0: none

    @property
    def keep(self) -> list[int]:
        """The descriptors that belong to it."""
        optional = (self.rings, self.wake, self.stacks if self.stacks >= 0 else None)
        return [self.board, *(fd for fd in optional if fd is not None)]


class Taken(NamedTuple):
    """A seat taken: the row, and the function that writes to the ring (None: no access log)."""

    row: Row
    write: Write | None


def take(seat: Seat, index: int | None) -> Taken:
    """Take the row of that index for this process; None is one that nobody sees."""
    row = Row() if index is None else Row(seat.board, index)
    row.claim(seat.slot, seat.generation, time.monotonic())
    write = None
    if seat.rings is not None and seat.wake is not None and index is not None:
        write = writer(seat.rings, index, seat.wake)
    return Taken(row, write)


def ready(row: Row, look: float = LOOK) -> None:
    """The worker serves: say so in its row, and keep its memory's size there: a look each so many seconds."""
    row.cells[MEMORY] = process.proportional_set_size() or 0
    row.cells[STATE] = READY
    native("_thread", "start_new_thread")(_watch_memory, (row, look, native("time", "sleep")))


def draining(row: Row) -> None:
    """The worker takes nothing new."""
    row.cells[STATE] = DRAINING


def _watch_memory(row: Row, look: float, sleep: Callable[[float], None]) -> None:
    while True:
        sleep(look)
        row.cells[MEMORY] = process.proportional_set_size() or 0


class ArbiterDesk:
    """Gives the rows of a seat to the workers that gunicorn's arbiter forks, one at a time.

    The arbiter calls `reserve` before it forks, so that the child knows its row, and `settle` afterwards.
    """

    def __init__(self, seat: Seat) -> None:
        self.index: int | None = None
        self.arbiter = os.getpid()
        board = Board(seat.board)
        self._rows = {index: board.row(index) for index in seat.rows}
        self._pids: dict[int, int] = {}

    def reserve(self) -> None:
        """Choose the next worker's row: one that the supervisor has freed."""
        taken = set(self._pids.values())
        free = (index for index, row in self._rows.items() if index not in taken and row.cells[STATE] == FREE)
        self.index = next(free, None)

    def settle(self, pid: int) -> None:
        """The worker with the reserved row has that pid."""
        if self.index is not None:
            self._pids[pid] = self.index
        self.index = None

    def leave(self, living: Container[int]) -> list[int]:
        """Mark the rows of workers that are gone; their pids."""
        gone = [pid for pid in self._pids if pid not in living]
        for pid in gone:
            row = self._rows[self._pids.pop(pid)]
            if row.used:
                row.cells[STATE] = GONE
        return gone
