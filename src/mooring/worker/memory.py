"""A worker's own memory, measured by itself and kept in its row of the scoreboard.

The supervisor may not read it: under Docker's default capabilities, root may not open the smaps_rollup of a
process that has changed its user.
"""

from __future__ import annotations

from collections.abc import Callable

from mooring.scoreboard.row import MEMORY, Row
from mooring.system import process
from mooring.system.unpatched import native

LOOK, SAMPLE = 10.0, 2.0  # seconds between two measurements; where the worker's memory is limited


def watch(row: Row, look: float = LOOK) -> None:
    """Write the proportional set size (bytes) into the row: now, and every `look` seconds from a thread."""
    row.cells[MEMORY] = process.proportional_set_size() or 0
    native("_thread", "start_new_thread")(_watch, (row, look, native("time", "sleep")))


def _watch(row: Row, look: float, sleep: Callable[[float], None]) -> None:
    while True:
        sleep(look)
        row.cells[MEMORY] = process.proportional_set_size() or 0
