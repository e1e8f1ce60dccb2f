"""The C functions for the work of each request, in mooring._accelerator, where they can be used.

The module exists where a C compiler was found when mooring was installed. Without it, the functions that ask
here do the same in Python: they are its specification. A constant that both need is passed to C, or is
written in both; then the Python file first has them compared (`agrees`).
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mooring.scoreboard.row import (
    BOUNDS,
    CLASSES,
    DROPPED,
    DURATIONS,
    HISTOGRAM,
    MOVES,
    OVERFLOW,
    PLACES,
    RAISED,
    RECORD,
    STREAMS,
)

c: Any = None
try:
    c = importlib.import_module("mooring._accelerator")
except ImportError:
    pass

if TYPE_CHECKING:
    import mmap

    from mooring.scoreboard.row import Row


def agrees(twin: str, **ours: object) -> bool:
    """Whether the file `twin` has a C twin with the same constants: `ours` is all of them, by name.

    Where one differs, the C module is of another version: the files of a running process were upgraded, or
    the module was not built again. Then this process uses Python for everything, and logs that once. Call it
    before the first request has its place in the row: C and Python keep their own records of free places.
    """
    global c  # noqa: PLW0603
    if c is None:
        return False
    theirs = getattr(c, "constants", {}).get(twin, {})
    differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if not differing:
        return True
    refuse("; ".join(f"{twin}.{each}: {ours.get(each)!r}, C: {theirs.get(each)!r}" for each in differing))
    c = None
    return False


def refuse(differences: str) -> None:
    """Log why the C module is not used."""
    import logging  # here, because the supervisor does not load it

    logging.getLogger("mooring").warning(
        "mooring._accelerator is of another version, and not used: requests take longer. "
        "Install mooring anew, and restart it. What differs: %s",
        differences,
    )


def ring_writer(memory: mmap.mmap, wake: int, page: int, size: int, full: int, delay: float) -> Any:  # noqa: PLR0917
    """The C twin of what ring.writer returns; only for a caller that has asked `agrees` for its file."""
    return c.Writer(memory, wake, page, size, full, delay)


def row(of: Row, write: object = None) -> Any:
    """The C object with `begin`, `end` (as of meter.table) and `count` on a row, or None.

    `write` is the access log's writer, if there is one.
    """
    if not agrees("row", CLASSES=CLASSES, RECORD=RECORD.format):
        return None
    return c.Row(
        data=of.data,
        bounds=BOUNDS,
        histogram=HISTOGRAM,
        durations=DURATIONS,
        overflow=OVERFLOW,
        raised=RAISED,
        dropped=DROPPED,
        moves=MOVES,
        streams=STREAMS,
        first=PLACES.start,
        stop=PLACES.stop,
        stride=PLACES.step,
        writer=write if isinstance(write, c.Writer) else None,
    )


def date(render: Callable[[time.struct_time], str]) -> Callable[[int], str]:
    """A function from seconds since the epoch to `render`'s text of that second in local time."""
    return lambda second: render(time.localtime(second))


def counter(of: Row) -> Any:
    """`count(base, status, seconds, failed, place)` on a row, which any thread may call; or None."""
    made = row(of)
    return made.count if made is not None else None


def apache(of: Row, write: object, timed: bool | None, render: Callable[[time.struct_time], str]) -> Any:
    """A function that makes and writes an entry's line, and returns False where Python has to; or None."""
    if c is None or timed is None or not isinstance(write, c.Writer):
        return None
    return c.Apache(row(of, write), date(render), timed).put
