"""Whether what is done for each request is done in C, and with what: mooring._accelerator.

It is there where a compiler was at hand when mooring was installed. Without it the functions that ask here do
the same in Python; they are what specifies it. A constant that both need is handed to C or stands there, too:
then the file that asks has it compared first (`agrees`).
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
    OVERFLOW,
    PLACES,
    RAISED,
    RECORD,
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
    """Whether there is a C twin of that file with the same constants: `ours` is all of them, by name.

    Where one differs, C is of another version (the files of a running process were upgraded, or C was not
    built anew): this process does everything in Python from then on, and says so once. To be asked before
    the first request has its place in the row: both ways have their own idea of which places are free.
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
    """Say why there is no C any more."""
    import logging  # only then: the supervisor has none

    logging.getLogger("mooring").warning(
        "mooring._accelerator is of another version, and not used: requests take longer. "
        "Install mooring anew, and restart it. What differs: %s",
        differences,
    )


def ring_writer(memory: mmap.mmap, wake: int, page: int, size: int, full: int, delay: float) -> Any:  # noqa: PLR0917
    """What ring.writer returns; to be asked only where it agrees."""
    return c.Writer(memory, wake, page, size, full, delay)


def row(of: Row, write: object = None) -> Any:
    """`begin`, `end` and `count` of meter.table's kind on that row, or None; `write` is its log's."""
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
        first=PLACES.start,
        stop=PLACES.stop,
        stride=PLACES.step,
        writer=write if isinstance(write, c.Writer) else None,
    )


def date(render: Callable[[time.struct_time], str]) -> Callable[[int], str]:
    """Text of a second, given in seconds since the epoch."""
    return lambda second: render(time.localtime(second))


def counter(of: Row) -> Any:
    """`count(base, status, seconds, failed, place)` on that row, for any thread; or None."""
    made = row(of)
    return made.count if made is not None else None


def apache(of: Row, write: object, timed: bool | None, render: Callable[[time.struct_time], str]) -> Any:
    """A function that makes and writes an entry's line, False where it is none of its cases; or None."""
    if c is None or timed is None or not isinstance(write, c.Writer):
        return None
    return c.Apache(row(of, write), date(render), timed).put
