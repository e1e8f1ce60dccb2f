"""The scoreboard: shared memory in which each worker writes a row of its own. Standard library only.

A row is a fixed number of aligned native doubles, so that any process can read it at any moment without a
lock: a store of one is whole, and a count is exact up to 2**53. One process writes a row (the worker that has
it); the supervisor reads rows as untrusted bytes, and adds a row to the totals when its worker is gone
(totals.py). Not for the access log's lines, which have rings of their own (ring.py).
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isfinite
from typing import NamedTuple, cast

from mooring.system.memory import shared_memory

# -- the cells of a row ---------------------------------------------------------------------------------

STATE, PID, SLOT, GENERATION, STARTED, BEAT, MEMORY = range(7)
DURATIONS = 7  # seconds that all counted requests took, together
WEBSOCKETS = 8  # open ones
OVERFLOW = 9  # requests in flight beyond the table below
DROPPED = 10  # lines that the access log had no room for
RAISED = 11  # requests in which the application failed before its answer was complete
REJECTED = 12  # requests beyond the most at once
TIMED_OUT = 13  # requests that took longer than they may

# Its worker writes STARTING to DRAINING; GONE is written by gunicorn's arbiter for a worker of its own, and
# FREE by the supervisor.
FREE, STARTING, READY, DRAINING, GONE = range(5)
STATES = ("free", "starting", "ready", "draining", "gone")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other", "WEBSOCKET")
CLASSES = 8  # cells of a method, by the status's first digit: 1 to 5 are used
COUNTS = 64  # the first of them
METHOD_BASE = {name: COUNTS + CLASSES * number for number, name in enumerate(METHODS)}
OTHER_BASE = METHOD_BASE["other"]
REQUEST_BASE = {name: METHOD_BASE[name] for name in METHODS if name != "WEBSOCKET"}  # by what clients send
_METHOD_NAMES = {float(base): name for name, base in METHOD_BASE.items()}


def _bounds() -> tuple[float, ...]:
    """Upper bounds in seconds, 50 us to 60 s.

    Neighbours differ by less than 10 %, and 1, 2.5 and 5 of each decade are among them.
    """
    marks = [5e-5]
    for exponent in range(-4, 2):
        marks += [float(f"{digits}e{exponent}") for digits in ("1", "2.5", "5")]
    marks += [60.0] if marks[-1] < 60 else []
    found = [marks[0]]
    for low, high in pairwise(marks):
        steps = math.ceil(math.log(high / low) / math.log(1.1))
        found += [low * (high / low) ** (step / steps) for step in range(1, steps)] + [high]
    return tuple(found)


BOUNDS = _bounds()
HISTOGRAM = COUNTS + CLASSES * len(METHODS)  # a cell for each bound, and one for what took longer
BUCKETS = len(BOUNDS) + 1
_COUNTED = HISTOGRAM + BUCKETS
COUNTERS = (
    DURATIONS,
    DROPPED,
    RAISED,
    REJECTED,
    TIMED_OUT,
)  # besides all cells from COUNTS on; they never go down

# The table of requests in flight. Each has a record: when it began (monotonic seconds, 0 where there is
# none), its METHOD_BASE, and its path, padded with NULs. A record is known by the cell that it begins with.
REQUESTS = 128
RECORD = struct.Struct("dd112s")
_STRIDE = RECORD.size // 8
_IN_FLIGHT = 512  # cells before it: 296
PLACES = range(_IN_FLIGHT, _IN_FLIGHT + REQUESTS * _STRIDE, _STRIDE)
ROW_BYTES = -(-PLACES.stop * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
ROWS = 8192
_PIECE = 64  # rows that are mapped together
_MOST = 2.0**53  # no count is higher


def doubles(memory: mmap.mmap) -> memoryview[float]:
    """Shared memory as native doubles."""
    return memoryview(memory).cast("d")


def _floats(cells: memoryview[float]) -> list[float]:
    return cast("list[float]", cells.tolist())


class InFlight(NamedTuple):
    """A request in flight: its path (as the client sent it, cut to fit, not escaped), and its age in
    seconds.
    """

    method: str
    path: str
    age: float


class Row:
    """One row, mapped. `cells` are its doubles, `data` the whole memory."""

    def __init__(self, fd: int = -1, index: int = 0, memory: memoryview | None = None) -> None:
        """Map a row of the scoreboard `fd`, or use what is mapped; with neither, a row of one's own."""
        self.index = index
        own = memoryview(mmap.mmap(fd, ROW_BYTES, offset=index * ROW_BYTES)) if memory is None else memory
        self.data = own
        self.cells = own.cast("d")
        self.free = list(reversed(PLACES))  # the places of the table that are free: the writer's own

    def close(self) -> None:
        """Give it up; a mapping of its own ends with it."""
        self.cells.release()
        self.data.release()

    def claim(self, slot: int, generation: int, now: float) -> None:
        """Make it the row of this process, in state starting."""
        cells = self.cells
        cells[PID], cells[SLOT], cells[GENERATION] = os.getpid(), slot, generation
        cells[STARTED] = cells[BEAT] = now
        cells[STATE] = STARTING

    @property
    def used(self) -> bool:
        """Whether a worker has claimed it since it was last erased."""
        return bool(self.cells[PID])

    def read(self, cell: int) -> float:
        """A cell's value; 0 for one that is no number at all, or below 0."""
        value = float(self.cells[cell])
        return value if isfinite(value) and value > 0 else 0.0

    def counts(self) -> list[float]:
        """The cells up to the histogram's end.

        Those in COUNTERS, and all from COUNTS on, may be added up over rows.
        """
        values = _floats(self.cells[:_COUNTED])
        if not (min(values) >= 0 and sum(values) < _MOST):  # or one is NaN
            values = [value if 0 < value < _MOST else 0.0 for value in values]
        return values

    def in_flight(self, now: float) -> list[InFlight]:
        """The requests of the table, oldest first."""
        found = []
        for place in PLACES:
            began, base, path = RECORD.unpack_from(self.data, place * 8)
            if isfinite(began) and began > 0 and base:  # without one it is being written just now
                text = path.partition(b"\0")[0].decode("utf-8", "backslashreplace")
                found.append(InFlight(_METHOD_NAMES.get(base, "other"), text, max(0.0, now - began)))
        return sorted(found, key=lambda request: -request.age)

    def began(self) -> list[float]:
        """When each request of the table began, the oldest first: it changes whenever one begins or ends."""
        return sorted(filter(None, _floats(self.cells[PLACES.start : PLACES.stop : _STRIDE])))

    def in_flight_count(self) -> int:
        """How many requests are in flight, those beyond the table included."""
        table = _floats(self.cells[PLACES.start : PLACES.stop : _STRIDE])
        return REQUESTS - table.count(0.0) + int(self.read(OVERFLOW))

    def erase(self) -> None:
        """Zero it: the supervisor's, once its worker is gone and counted."""
        self.data[8:] = bytes(ROW_BYTES - 8)
        self.cells[STATE] = FREE  # last: from here on gunicorn's arbiter may give it to another worker


class Board:
    """Many rows of a scoreboard, mapped in pieces: each mapping holds a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: dict[int, mmap.mmap] = {}

    def row(self, index: int) -> Row:
        """The row of that index. Raises OSError."""
        piece, place = divmod(index, _PIECE)
        if piece not in self._pieces:
            size = _PIECE * ROW_BYTES
            self._pieces[piece] = mmap.mmap(self._fd, size, offset=piece * size)
        at = place * ROW_BYTES
        return Row(index=index, memory=memoryview(self._pieces[piece])[at : at + ROW_BYTES])


def create() -> int:
    """The memory of a new scoreboard, as a descriptor (close-on-exec). Untouched rows take no memory."""
    return shared_memory("mooring-scoreboard", ROWS * ROW_BYTES)


def quantile(buckets: list[float], share: float, bounds: Sequence[float] = BOUNDS) -> float | None:
    """The `share` quantile (0 to 1) in seconds of counts by bucket, within 5 %; None where nothing was.

    The geometric middle of the bucket that holds it; what is below the first bound or beyond the last is
    given as that bound.
    """
    rank, seen = share * sum(buckets), 0.0
    for index, count in enumerate(buckets):
        seen += count
        if count and seen >= rank:
            if 0 < index < len(bounds):
                return float((bounds[index - 1] * bounds[index]) ** 0.5)
            return bounds[min(index, len(bounds) - 1)]
    return None


def each_bound() -> Iterator[tuple[int, float]]:
    """The bounds that /metrics shows (1, 2.5, 5 of each decade, and 60), with their indices."""
    for index, bound in enumerate(BOUNDS):
        if f"{bound:.1e}"[:3] in ("1.0", "2.5", "5.0") or bound == BOUNDS[-1]:
            yield index, bound
