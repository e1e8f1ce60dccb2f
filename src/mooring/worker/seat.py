"""A worker's place in shared memory: its rows and rings, and how it takes them."""

from __future__ import annotations

import os
import time
from collections.abc import Container
from typing import NamedTuple

from mooring.scoreboard.ring import Write, writer
from mooring.scoreboard.row import DRAINING, FREE, GONE, READY, STATE, Board, Row


class Seat(NamedTuple):
    """A worker's place: slot and generation; descriptors of the scoreboard, of the rings and of their eventfd
    (None: no access log); the indexes of its rows (several for an engine's arbiter; empty where none is
    left). A row and its ring have the same index.
    """

    slot: int
    generation: int
    board: int
    rows: tuple[int, ...]
    rings: int | None
    wake: int | None
    stacks: int = -1  # descriptor of a file in memory, for the stacks of a hung worker; below 0: none

    @property
    def keep(self) -> list[int]:
        """The descriptors of this seat, which the worker must inherit."""
        optional = (self.rings, self.wake, self.stacks if self.stacks >= 0 else None)
        return [self.board, *(fd for fd in optional if fd is not None)]


class Taken(NamedTuple):
    """A seat taken: the row, and the function that writes to the ring (None: no access log)."""

    row: Row
    write: Write | None


def take(seat: Seat, index: int | None) -> Taken:
    """Take the row with this index for this process; None: a row that no other process sees."""
    row = Row() if index is None else Row(seat.board, index)
    row.claim(seat.slot, seat.generation, time.monotonic())
    write = None
    if seat.rings is not None and seat.wake is not None and index is not None:
        write = writer(seat.rings, index, seat.wake)
    return Taken(row, write)


def ready(row: Row) -> None:
    """Mark the row's worker as ready."""
    row.cells[STATE] = READY


def draining(row: Row) -> None:
    """Mark the row's worker as draining: it takes no new requests."""
    row.cells[STATE] = DRAINING


class SeatArbiterRows:
    """Gives the rows of a seat to the workers that an engine's arbiter forks, one at a time.

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
        """Note the pid of the worker that has the reserved row."""
        if self.index is not None:
            self._pids[pid] = self.index
        self.index = None

    def leave(self, living: Container[int]) -> list[int]:
        """Mark the rows of workers that are not in `living` as gone. Returns their pids."""
        gone = [pid for pid in self._pids if pid not in living]
        for pid in gone:
            row = self._rows[self._pids.pop(pid)]
            if row.used:
                row.cells[STATE] = GONE
        return gone
