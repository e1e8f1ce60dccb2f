"""What the wrapper around the application writes to: the worker's row, and the access log's ring.

The wrappers (asgi.py, wsgi.py) write to the row's cells themselves: a call for each number
would cost more than the number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mooring.instrument.drain import Drain
from mooring.logs.access import parts
from mooring.scoreboard import accelerator
from mooring.scoreboard.row import DROPPED, OVERFLOW, RECORD, Row

if TYPE_CHECKING:
    from mooring.logs.access.line import Format
    from mooring.scoreboard.ring import Write

Wanted = Callable[[Any, int], bool]  # the path as requested, bytes or Latin-1 text, and the status


@dataclass(frozen=True, slots=True)
class Lines:
    """The access log: what a line looks like, which requests have one, what a nameless client is called.

    `write` takes whole lines and the monotonic time; False means dropped. `wanted` is None for all of them.
    """

    format: Format
    write: Write
    wanted: Wanted | None = None
    nameless: str = "-"


@dataclass(frozen=True, slots=True)
class Meter:
    """A worker's row, its access log where there is one, and whether it drains."""

    row: Row
    lines: Lines | None = None
    drain: Drain = field(default_factory=Drain)


Begin = Callable[[int, bytes, float], int]
End = Callable[[int], None]


def table(row: Row) -> tuple[Begin, End]:
    """Two functions on the row's table of requests in flight.

    `begin(method_base, path, now)` returns the request's place, 0 where the table is full; `end(place)`.
    Threads may call them, but for a full table's count, which is exact in one thread.
    """
    accelerated = accelerator.row(row)
    if accelerated is not None:
        return accelerated.begin, accelerated.end
    cells, data, record = row.cells, row.data, RECORD.pack_into
    take, give = row.free.pop, row.free.append

    def begin(base: int, path: bytes, now: float) -> int:
        try:
            place = take()
        except IndexError:
            cells[OVERFLOW] += 1.0
            return 0
        record(data, place * 8, now, base, path)
        return place

    def end(place: int) -> None:
        if place:
            cells[place] = 0.0
            give(place)
        else:
            cells[OVERFLOW] -= 1.0

    return begin, end


def lines_agree() -> bool:
    """Whether C makes lines of Apache's form, with the constants of Python's: logs/access/parts.py."""
    return accelerator.agrees(
        "line",
        LONGEST=parts.LONGEST,
        ENTRY=parts.ENTRY,
        HOST=parts.HOST,
        PORT=parts.PORT,
        METHOD=parts.METHOD,
        TARGET=parts.TARGET,
        VERSION=parts.VERSION,
        STATUS=parts.STATUS,
        SIZE=parts.SIZE,
        SECONDS=parts.SECONDS,
        REFERER=parts.REFERER,
        AGENT=parts.AGENT,
        REQUEST_ID=parts.REQUEST_ID,
        TRACE_ID=parts.TRACE_ID,
        EXTRA=parts.EXTRA,
    )


def line_writer(meter: Meter, lines: Lines) -> Callable[[str, float], None]:
    """A function that puts a line into the log, or counts that there was no room.

    Not for several threads at once.
    """
    cells, write = meter.row.cells, lines.write

    def put(line: str, now: float) -> None:
        if not write(line.encode("utf-8", "backslashreplace"), now):
            cells[DROPPED] += 1.0

    return put
