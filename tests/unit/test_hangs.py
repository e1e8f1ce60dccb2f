"""When a WSGI worker's threads are all busy: what a look at its row tells, whatever comes and goes beside."""

from __future__ import annotations

from mooring.hangs import _busy
from mooring.scoreboard import PLACES, REQUEST_BASE, Row


def begin(row: Row, place: int, began: float) -> None:
    row.cells[PLACES[place]] = began
    row.cells[PLACES[place] + 1] = float(REQUEST_BASE["GET"])


def test_a_pool_is_busy_with_its_oldest_requests_while_newer_ones_are_refused() -> None:
    row = Row()
    assert _busy(row, 2) is None
    begin(row, 0, 7.0)
    assert _busy(row, 2) is None
    begin(row, 1, 5.0)
    assert _busy(row, 2) == (5.0, 7.0)
    begin(row, 2, 9.0)  # about to be refused, by a thread that the limit has besides
    assert _busy(row, 2) == (5.0, 7.0)
    row.cells[PLACES[1]] = 0.0  # one of the two has ended
    assert _busy(row, 2) == (7.0, 9.0)
