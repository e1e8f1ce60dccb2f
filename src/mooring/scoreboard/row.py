"""The scoreboard: shared memory in which each worker writes a row of its own. Standard library only.

A row is a fixed number of aligned native doubles, so that any process can read it at any moment without a
lock: storing a double is atomic, and a count is exact up to 2**53. One process writes a row (the worker that
has it). The supervisor reads rows as untrusted bytes, and adds a row to the totals when its worker has ended
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

from mooring.system.memfd import shared_memory

# -- the cells of a row ---------------------------------------------------------------------------------

STATE, PID, SLOT, GENERATION, STARTED, BEAT, MEMORY = range(7)
DURATIONS = 7  # seconds: the sum over all counted requests
WEBSOCKETS = 8  # how many are open
OVERFLOW = 9  # requests in flight for which the table below has no room
DROPPED = 10  # access log lines for which the ring had no room
RAISED = 11  # requests in which the application failed before its response was complete
REJECTED = 12  # requests refused because of max_in_flight
TIMED_OUT = 13  # requests that took longer than request_timeout
# Signs of life of a WSGI worker whose threads are all busy: supervisor/hangs.py.
MOVES = 14  # parts of bodies, given by the application or read by it
STREAMS = 15  # responses, not lists, of which a part is on its way
TAKEN = 16  # looks at which clients had taken bytes since the look before
FULL = 17  # 1 while the worker has its most connections, else 0
REFUSED = 20  # the first of the cells for what was refused of clients: one for each of REFUSALS

REFUSALS = (
    "head_timeout",  # no whole head in time
    "body_timeout",  # a body that stalls or drips
    "send_timeout",  # a client that takes nothing of its answer
    "head_size",
    "head_fields",
    "body_size",
    "malformed",  # not HTTP, or with two meanings
    "connections",  # closed because there were too many
    "websocket",  # a message too large, in too many fragments, or pings that nobody answers
    "http2",  # floods of frames
)  # at most 32

# The states of a row. Its worker writes STARTING, READY and DRAINING; an engine's arbiter writes GONE when a
# worker of its own has ended; the supervisor writes FREE.
FREE, STARTING, READY, DRAINING, GONE = range(5)
STATES = ("free", "starting", "ready", "draining", "gone")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other", "WEBSOCKET")
CLASSES = 8  # cells for each method, by the status's first digit: 1 to 5 are used
COUNTS = 64  # the first of these cells
METHOD_BASE = {name: COUNTS + CLASSES * number for number, name in enumerate(METHODS)}
OTHER_BASE = METHOD_BASE["other"]
REQUEST_BASE = {name: METHOD_BASE[name] for name in METHODS if name != "WEBSOCKET"}  # by a request's method
_METHOD_NAMES = {float(base): name for name, base in METHOD_BASE.items()}


def _bounds() -> tuple[float, ...]:
    """Upper bounds of the histogram's buckets in seconds, 50 us to 60 s.

    Neighbours differ by less than 10 %, and 1, 2.5 and 5 of each decade are among the bounds.
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
HISTOGRAM = COUNTS + CLASSES * len(METHODS)  # a cell for each bound, and one for longer requests
BUCKETS = len(BOUNDS) + 1
_COUNTED = HISTOGRAM + BUCKETS
COUNTERS = (
    DURATIONS,
    DROPPED,
    RAISED,
    REJECTED,
    TIMED_OUT,
    *range(REFUSED, REFUSED + len(REFUSALS)),
)  # these cells, and all from COUNTS on, never go down

# The table of requests in flight. Each request has a record: when it began (monotonic seconds, 0 if the
# record is free), its METHOD_BASE, and its path, padded with NULs. A record's place is the index of its first
# cell.
REQUESTS = 128
RECORD = struct.Struct("dd112s")
_STRIDE = RECORD.size // 8
_IN_FLIGHT = 512  # the table's first cell; of those before it, 296 are used
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
    """A request in flight: its path as the client sent it (cut to fit, not escaped), its age in seconds."""

    method: str
    path: str
    age: float


class Row:
    """One mapped row. `cells` are its doubles, `data` its bytes."""

    def __init__(self, fd: int = -1, index: int = 0, memory: memoryview | None = None) -> None:
        """Map row `index` of the scoreboard `fd`, or use the mapped `memory`; with neither, new memory."""
        self.index = index
        own = memoryview(mmap.mmap(fd, ROW_BYTES, offset=index * ROW_BYTES)) if memory is None else memory
        self.data = own
        self.cells = own.cast("d")
        self.free = list(reversed(PLACES))  # free places of the table; only the writer uses this

    def close(self) -> None:
        """Release the row, and its mapping if nothing else uses that."""
        self.cells.release()
        self.data.release()

    def claim(self, slot: int, generation: int, now: float) -> None:
        """Make this the row of the current process, in state STARTING; `now` in monotonic seconds."""
        cells = self.cells
        cells[PID], cells[SLOT], cells[GENERATION] = os.getpid(), slot, generation
        cells[STARTED] = cells[BEAT] = now
        cells[STATE] = STARTING

    @property
    def used(self) -> bool:
        """Whether a worker has claimed the row since it was last erased."""
        return bool(self.cells[PID])

    def read(self, cell: int) -> float:
        """A cell's value; 0 if that is not finite or below 0."""
        value = float(self.cells[cell])
        return value if isfinite(value) and value > 0 else 0.0

    def counts(self) -> list[float]:
        """The cells up to the histogram's end.

        The cells in COUNTERS, and all from COUNTS on, may be summed over rows.
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
            if isfinite(began) and began > 0 and base:  # base is 0 while the record is being written
                text = path.partition(b"\0")[0].decode("utf-8", "backslashreplace")
                found.append(InFlight(_METHOD_NAMES.get(base, "other"), text, max(0.0, now - began)))
        return sorted(found, key=lambda request: -request.age)

    def began(self) -> list[float]:
        """When each request in the table began, oldest first: a new list whenever one begins or ends."""
        return sorted(filter(None, _floats(self.cells[PLACES.start : PLACES.stop : _STRIDE])))

    def in_flight_count(self) -> int:
        """How many requests are in flight, including those for which the table has no room."""
        table = _floats(self.cells[PLACES.start : PLACES.stop : _STRIDE])
        return REQUESTS - table.count(0.0) + int(self.read(OVERFLOW))

    def erase(self) -> None:
        """Zero the row. Only the supervisor does so, when the worker has ended and its counts are added."""
        self.data[8:] = bytes(ROW_BYTES - 8)
        self.cells[STATE] = FREE  # last: from now on an engine's arbiter may give the row to another worker


class Board:
    """The rows of a scoreboard. Several are mapped together, since each mapping holds a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: dict[int, mmap.mmap] = {}

    def row(self, index: int) -> Row:
        """The row at `index`. Raises OSError."""
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
    """The quantile `share` (0 to 1) of a histogram, in seconds, within 5 %; None if nothing was counted.

    It is the geometric mean of its bucket's bounds. In the first or last bucket, it is the only bound.
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
