"""The supervisor's side of the scoreboard: who has which row, and the totals of workers that are gone.

Totals never go down: a row is added to them when its worker has been reaped, before the row is given away
again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import lt
from typing import NamedTuple

from mooring.scoreboard import row as scoreboard
from mooring.scoreboard.row import COUNTERS, COUNTS, DURATIONS, FREE, GONE, HISTOGRAM, Board, Row

# An arbiter's workers have a row each; it may be told to have more of them (TTIN) before the next roll.
_ARBITER_SPARE, _ARBITER_MOST = 32, 1024
_CELLS = HISTOGRAM + scoreboard.BUCKETS
_ADDED = (*COUNTERS, *range(COUNTS, _CELLS))


class RowInUse(NamedTuple):
    """A row and the worker that has it."""

    serial: int
    row: Row


class Totals:
    """The scoreboard, its rows and their totals. Raises OSError where the system has no memory to give."""

    def __init__(self) -> None:
        self.fd = scoreboard.create()
        self._board = Board(self.fd)
        self.rows: dict[int, list[Row]] = {}  # by the serial number of the worker they were given to
        self.gone = [0.0] * _CELLS  # as Row.counts: the sums of all rows that were taken back
        self._seen: dict[int, list[float]] = {}  # by row: the highest counts that were read of it
        self._duration = 0.0
        self._free = list(range(scoreboard.ROWS - 1, -1, -1))

    def give(self, serial: int, arbiter_of: int = 0) -> tuple[int, ...]:
        """A row for a new worker, by index; for gunicorn's arbiter one for each of its own workers, and some
        more.

        Empty where there are none left: such a worker counts for itself only. Raises OSError; `take` gives
        back what there was.
        """
        number = min(2 * arbiter_of + _ARBITER_SPARE, _ARBITER_MOST) if arbiter_of else 1
        number = min(number, len(self._free))
        rows = self.rows[serial] = []  # from the start: what is refused halfway can be taken back
        for _ in range(number):
            rows.append(self._board.row(self._free[-1]))
            self._free.pop()
        return tuple(row.index for row in rows)

    def take(self, serial: int) -> None:
        """Take a worker's rows back, now that its process is gone."""
        for row in self.rows.pop(serial, []):
            self._add(row)
            self._free.append(row.index)
            row.close()

    def sweep(self, serial: int) -> None:
        """Free the rows of an arbiter's workers that are gone, so that it can give them to others."""
        for row in self.rows.get(serial, []):
            if row.read(scoreboard.STATE) == GONE:
                self._add(row)

    def in_use(self) -> Iterator[RowInUse]:
        """Every row that a worker is using."""
        for serial, rows in self.rows.items():
            for row in rows:
                if row.read(scoreboard.STATE) not in (FREE, GONE):
                    yield RowInUse(serial, row)

    def totals(self) -> list[float]:
        """As Row.counts: the sums over all rows, past ones included."""
        columns = [self.gone, *(self._counts(row) for row in self._rows_in_use())]
        totals = [sum(column) for column in zip(*columns, strict=True)]
        # A sum of floats depends on their order, in its last digit; for a scraper, less is a restart.
        totals[DURATIONS] = self._duration = max(self._duration, totals[DURATIONS])
        return totals

    def _rows_in_use(self) -> Iterator[Row]:
        for rows in self.rows.values():
            yield from (row for row in rows if row.used or row.index in self._seen)

    def _counts(self, row: Row) -> list[float]:
        """What a row counts, and no less than the last time: whatever its worker has written over it."""
        counts, before = row.counts(), self._seen.get(row.index)
        if before is not None and any(map(lt, counts, before)):
            for cell in _ADDED:
                counts[cell] = max(counts[cell], before[cell])
        self._seen[row.index] = counts
        return counts

    def close(self) -> None:
        """Unmap and close it."""
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
