"""The supervisor's side of the scoreboard: which worker has which row, and the totals of ended workers.

Totals never go down: a row is added to them when its worker has been reaped, before another worker gets the
row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import lt
from typing import NamedTuple

from mooring.scoreboard.row import (
    BUCKETS,
    COUNTERS,
    COUNTS,
    DURATIONS,
    FREE,
    GONE,
    HISTOGRAM,
    ROWS,
    STATE,
    Board,
    Row,
    create,
)

# Each worker of an engine's arbiter has a row. Before the next roll, TTIN may tell it to have more workers.
_ARBITER_SPARE, _ARBITER_MOST = 32, 1024
_CELLS = HISTOGRAM + BUCKETS
_ADDED = (*COUNTERS, *range(COUNTS, _CELLS))


class RowInUse(NamedTuple):
    """A row and the worker that has it."""

    serial: int
    row: Row


class Totals:
    """The scoreboard, its rows and their totals. Raises OSError if the system gives no memory."""

    def __init__(self) -> None:
        self.fd = create()
        self._board = Board(self.fd)
        self.rows: dict[int, list[Row]] = {}  # by the serial number of the worker they were given to
        self.gone = [0.0] * _CELLS  # as Row.counts: the sums of all rows that were taken back
        self._seen: dict[int, list[float]] = {}  # by row index: the highest counts that were read
        self._duration = 0.0
        self._free = list(range(ROWS - 1, -1, -1))

    def give(self, serial: int, arbiter_of: int = 0) -> tuple[int, ...]:
        """The index of a row for a new worker. An engine's arbiter gets one for each worker, and spare ones.

        Empty if no row is left: the worker's counts are then in no total. Raises OSError; `take` then frees
        the rows that were given.
        """
        number = min(2 * arbiter_of + _ARBITER_SPARE, _ARBITER_MOST) if arbiter_of else 1
        number = min(number, len(self._free))
        rows = self.rows[serial] = []  # kept from the start, so that `take` finds the rows after an error
        for _ in range(number):
            rows.append(self._board.row(self._free[-1]))
            self._free.pop()
        return tuple(row.index for row in rows)

    def take(self, serial: int) -> None:
        """Take a worker's rows back after its process has ended."""
        for row in self.rows.pop(serial, []):
            self._add(row)
            self._free.append(row.index)
            row.close()

    def sweep(self, serial: int) -> None:
        """Free the rows of an arbiter's workers that have ended, so that it can give them to new ones."""
        for row in self.rows.get(serial, []):
            if row.read(STATE) == GONE:
                self._add(row)

    def in_use(self) -> Iterator[RowInUse]:
        """Every row that a worker is using."""
        for serial, rows in self.rows.items():
            for row in rows:
                if row.read(STATE) not in (FREE, GONE):
                    yield RowInUse(serial, row)

    def totals(self) -> list[float]:
        """The sums over all rows, past ones included, in the form of Row.counts."""
        columns = [self.gone, *(self._counts(row) for row in self._rows_in_use())]
        totals = [sum(column) for column in zip(*columns, strict=True)]
        # The last digit of a sum of floats depends on their order, and a scraper takes less for a restart.
        totals[DURATIONS] = self._duration = max(self._duration, totals[DURATIONS])
        return totals

    def _rows_in_use(self) -> Iterator[Row]:
        for rows in self.rows.values():
            yield from (row for row in rows if row.used or row.index in self._seen)

    def _counts(self, row: Row) -> list[float]:
        """A row's counts, but none lower than the last time, even if its worker has overwritten them."""
        counts, before = row.counts(), self._seen.get(row.index)
        if before is not None and any(map(lt, counts, before)):
            for cell in _ADDED:
                counts[cell] = max(counts[cell], before[cell])
        self._seen[row.index] = counts
        return counts

    def close(self) -> None:
        """Take all rows back and close the scoreboard's memory."""
        for serial in list(self.rows):
            self.take(serial)
        os.close(self.fd)

    def _add(self, row: Row) -> None:
        if row.used or row.index in self._seen:
            counts = self._counts(row)
            for cell in _ADDED:
                self.gone[cell] += counts[cell]
            del self._seen[row.index]
            row.erase()
