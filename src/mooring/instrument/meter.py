"""What the wrapper around the application writes to: the worker's row, and the access log's ring.

The wrappers (asgi.py, wsgi.py) write to the row's cells themselves: a function call would cost more than
writing the number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mooring.instrument.drain import DrainState
from mooring.logs.access import parts
from mooring.scoreboard import accelerator
from mooring.scoreboard.row import DROPPED, OVERFLOW, PLACES, RECORD, Row

if TYPE_CHECKING:
    from mooring.logs.access.line import Format
    from mooring.logs.access.loggers import AccessLog
    from mooring.logs.access.rules import Wanted
    from mooring.scoreboard.ring import Write

# The status of a request without an answer: the application failed, or the client had left.
FAILED, LEFT = 500, 499


@dataclass(frozen=True, slots=True)
class Lines:
    """The access log: the form of a line, which requests have one, the text for a client without address.

    `write` takes whole lines and the monotonic time in seconds; it returns False if they were dropped.
    `wanted` is None if all requests have a line. `access` is what the application has set on the servers' own
    access loggers; None where these are not watched.
    """

    format: Format
    write: Write
    wanted: Wanted | None = None
    nameless: str = "-"
    access: AccessLog | None = None


@dataclass(frozen=True, slots=True)
class Meter:
    """A worker's row, its access log if there is one, and its drain."""

    row: Row
    lines: Lines | None = None
    drain: DrainState = field(default_factory=DrainState)


Begin = Callable[[int, bytes, float], int]
End = Callable[[int], None]


def table(row: Row) -> tuple[Begin, End]:
    """Two functions on the row's table of requests in flight.

    `begin(method_base, path, now)` returns the request's place, 0 if the table is full; `end(place)` frees
    it. Threads may call them; only the count of requests beyond a full table is exact in one thread alone.
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
        if place in PLACES:  # else it is the place of an exchange that the application has changed
            cells[place] = 0.0
            give(place)
        elif not place:
            cells[OVERFLOW] -= 1.0

    return begin, end


def on_access_loggers(meter: Meter, renew: Callable[[Meter], None]) -> None:
    """Call `renew`, now or later, when the application has set something on a server's access logger.

    Its meter makes lines as the application wants them: in Python, and with all that a record can hold.
    """
    lines = meter.lines
    if lines is None or lines.access is None:
        return
    form = lines.format._replace(
        line=lines.access.line(lines.format.line), headers=True, full=True, timed=None
    )
    changed = replace(meter, lines=replace(lines, format=form))
    lines.access.subscribe(lambda: renew(changed))


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
    """A function that writes a line to the log, or counts it as dropped if there is no room.

    Not for several threads at once.
    """
    cells, write = meter.row.cells, lines.write

    def put(line: str, now: float) -> None:
        if not write(line.encode("utf-8", "backslashreplace"), now):
            cells[DROPPED] += 1.0

    return put
