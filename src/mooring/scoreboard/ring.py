"""Rings in shared memory, from each worker to the log writer: the access log's lines leave the request's path
here.

A line is in the ring before its response's last byte goes to the engine, so that a worker that is killed has
lost none. One writer and one reader a ring, no locks: the writer moves `head`, the reader `tail`, both count
bytes since the ring was made. A ring outlives the worker it was given to. Not for what is done with the lines
(logs/access/writer.py).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

from mooring.scoreboard import accelerator
from mooring.scoreboard.row import ROWS, doubles
from mooring.system.memory import shared_memory

SIZE = 512 * 1024
FULL = 64 * 1024  # the reader is woken when so much has come together,
DELAY = 0.05  # and at most so many seconds after a line has come: half of what is promised
_PAGE = mmap.PAGESIZE
_RING = _PAGE + SIZE
_HEAD, _TAIL = 0, 8  # cells, in cache lines of their own
_GIVEN, _LOST = (
    0,
    8,
)  # cells of the first page: how many rings were given away; lines that the log writer lost
_MOST = 2.0**53
_PIECE = 16  # rings that are mapped together: each mapping holds a descriptor

Write = Callable[[bytes, float], bool]


class Rings:
    """The memory of all rings, for the supervisor that gives them away. Untouched ones take no memory.

    `fd` and `wake` (an eventfd) are what writers and reader need; both close-on-exec. Raises OSError.
    """

    def __init__(self) -> None:
        self.fd = shared_memory("mooring-access-log", _PAGE + ROWS * _RING)
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._page = mmap.mmap(self.fd, _PAGE)
        self._cells = doubles(self._page)
        self._given = 0
        self._lost = 0

    def give(self, index: int) -> None:
        """Have the reader look at the ring of that index, and those below it."""
        self._given = max(self._given, index + 1)
        self._cells[_GIVEN] = self._given

    @property
    def lost(self) -> int:
        """Lines that the log writer had to throw away: the disk full, or the reader of a pipe gone."""
        self._lost = max(self._lost, _count(self._cells[_LOST]))
        return self._lost

    def close(self) -> None:
        """Close both descriptors."""
        self._cells.release()
        self._page.close()
        os.close(self.fd)
        os.close(self.wake)


def writer(fd: int, index: int, wake: int) -> Write:
    """A function that puts whole lines into a ring: `write(lines, now)`, `now` in monotonic seconds.

    It never waits; it returns False where there was no room. Only one process, and one thread at a time, may
    use it.
    """
    memory = mmap.mmap(fd, _RING, offset=_PAGE + index * _RING)
    if accelerator.agrees("ring", HEAD=_HEAD, TAIL=_TAIL, MOST=_MOST):
        accelerated: Write = accelerator.ring_writer(memory, wake, _PAGE, SIZE, FULL, DELAY)
        return accelerated
    cells = doubles(memory)
    head = _count(cells[_HEAD])
    lap = head - head % SIZE - _PAGE  # what a position in `memory` lacks to be a head
    at = head - lap
    limit = 0  # up to this position, nothing but the lines themselves is to be done
    due = 0.0

    def write(lines: bytes, now: float) -> bool:
        nonlocal at
        end = at + len(lines)
        if end > limit or now >= due:
            return careful(lines, now)
        memory[at:end] = lines
        at = end
        cells[_HEAD] = lap + end
        return True

    def careful(lines: bytes, now: float) -> bool:
        nonlocal at, lap, limit, due
        _kick(wake)
        due = now + DELAY
        room = min(_count(cells[_TAIL]) + SIZE - lap - at, SIZE)
        if len(lines) > room:
            cells[_HEAD] = lap + at  # as it was, unless somebody has scribbled: then the reader follows
            limit = 0
            return False
        rest = _RING - at
        memory[at : at + len(lines)] = lines[:rest]
        at += len(lines)
        if len(lines) >= rest:
            at -= SIZE
            lap += SIZE
            memory[_PAGE:at] = lines[rest:]
        cells[_HEAD] = lap + at
        limit = min(_RING, at + min(room - len(lines), FULL))
        return True

    return write


def _count(cell: float) -> int:
    return int(cell) if 0 <= cell < _MOST else 0


def _kick(wake: int) -> None:
    try:
        os.eventfd_write(wake, 1)
    except BlockingIOError:
        pass  # it is awake, then


class Reader:
    """The log writer's end of all rings. What is in them was written by workers, and is not trusted."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        page = mmap.mmap(fd, _PAGE)
        self._page = doubles(page)
        self._given = 0
        self._rings: list[tuple[memoryview, memoryview[float]]] = []

    def take(self, index: int) -> bytes:
        """What a ring holds: whole lines. They stay in it until `done`."""
        memory, cells = self._rings[index]
        head, tail = cells[_HEAD], cells[_TAIL]
        if not (0 <= tail <= head <= tail + SIZE and head < _MOST and head % 1 == tail % 1 == 0):
            # Somebody has scribbled: go on from where the writer is, if it can be there.
            cells[_HEAD] = cells[_TAIL] = float(_count(head))
            return b""
        if head == tail:
            return b""
        at, size = int(tail) % SIZE, int(head - tail)
        found = bytes(memory[_PAGE + at : min(_PAGE + at + size, _RING)])
        return found + memory[_PAGE : _PAGE + size - len(found)] if len(found) < size else found

    def held(self, index: int) -> float:
        """How many bytes a ring holds."""
        cells = self._rings[index][1]
        return cells[_HEAD] - cells[_TAIL]

    def done(self, index: int, size: int) -> None:
        """So many bytes of a ring are dealt with, and their room is free again."""
        self._rings[index][1][_TAIL] += size

    def lost(self, lines: int) -> None:
        """Count lines that were thrown away."""
        self._page[_LOST] += lines

    def indices(self) -> range:
        """The rings that there are."""
        given = self._given = max(min(_count(self._page[_GIVEN]), ROWS), self._given)
        while len(self._rings) < given:
            size = _PIECE * _RING
            piece = memoryview(mmap.mmap(self._fd, size, offset=_PAGE + len(self._rings) * _RING))
            rings = [piece[at : at + _RING] for at in range(0, size, _RING)]
            self._rings += [(ring, ring[:_PAGE].cast("d")) for ring in rings]
        return range(given)
