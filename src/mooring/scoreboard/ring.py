"""Rings in shared memory, which carry the access log's lines from each worker to the log writer.

A line is in the ring before its response's last byte goes to the engine, so a worker that is killed loses no
line. Each ring has one writer, one reader and no lock: the writer moves `head`, the reader moves `tail`; both
count bytes since the ring was made. A ring outlives the worker that it was given to. Not for what is done
with the lines (logs/access/writer.py).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

from mooring.scoreboard import accelerator
from mooring.scoreboard.row import ROWS, doubles
from mooring.system.memory import shared_memory

SIZE = 512 * 1024
FULL = 64 * 1024  # bytes in a ring at which the reader is woken
DELAY = 0.05  # seconds after which the reader is woken for a line: half of the promised time
_PAGE = mmap.PAGESIZE
_RING = _PAGE + SIZE
_HEAD, _TAIL = 0, 8  # cells, each in a cache line of its own
_GIVEN, _LOST = (
    0,
    8,
)  # cells of the first page: how many rings were given away; lines that the log writer lost
_MOST = 2.0**53
_PIECE = 16  # rings that are mapped together: each mapping holds a descriptor

Write = Callable[[bytes, float], bool]


class Rings:
    """The memory of all rings. The supervisor gives each worker a ring; unused rings take no memory.

    Writers and reader need `fd` and `wake` (an eventfd); both are close-on-exec. Raises OSError.
    """

    def __init__(self) -> None:
        self.fd = shared_memory("mooring-access-log", _PAGE + ROWS * _RING)
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._page = mmap.mmap(self.fd, _PAGE)
        self._cells = doubles(self._page)
        self._given = 0
        self._lost = 0

    def give(self, index: int) -> None:
        """Tell the reader to look at the ring `index`, and at all rings below it."""
        self._given = max(self._given, index + 1)
        self._cells[_GIVEN] = self._given

    @property
    def lost(self) -> int:
        """How many lines the log writer had to drop: the disk was full, or a pipe had no reader."""
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

    It never waits; it returns False if the ring has no room. Only one process may use it, one thread at a
    time.
    """
    memory = mmap.mmap(fd, _RING, offset=_PAGE + index * _RING)
    if accelerator.agrees("ring", HEAD=_HEAD, TAIL=_TAIL, MOST=_MOST):
        accelerated: Write = accelerator.ring_writer(memory, wake, _PAGE, SIZE, FULL, DELAY)
        return accelerated
    cells = doubles(memory)
    head = _count(cells[_HEAD])
    lap = head - head % SIZE - _PAGE  # a position in `memory` plus this is a head
    at = head - lap
    limit = 0  # up to this position, `write` only has to copy the lines
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
            cells[_HEAD] = lap + at  # the same, unless it was overwritten: then the reader follows
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
        pass  # the counter is full, so the reader is awake


class Reader:
    """The log writer's end of all rings. Workers write the rings, so their content is not trusted."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        page = mmap.mmap(fd, _PAGE)
        self._page = doubles(page)
        self._given = 0
        self._rings: list[tuple[memoryview, memoryview[float]]] = []

    def take(self, index: int) -> bytes:
        """The lines in a ring, whole ones only. They stay in it until `done` is called."""
        memory, cells = self._rings[index]
        head, tail = cells[_HEAD], cells[_TAIL]
        if not (0 <= tail <= head <= tail + SIZE and head < _MOST and head % 1 == tail % 1 == 0):
            # The cells were overwritten: go on from the writer's head, or from 0 if it is no possible value.
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
        """Free the first `size` bytes of a ring, whose lines have been handled."""
        self._rings[index][1][_TAIL] += size

    def lost(self, lines: int) -> None:
        """Count lines that were dropped."""
        self._page[_LOST] += lines

    def indices(self) -> range:
        """The indices of the rings that were given to workers."""
        given = self._given = max(min(_count(self._page[_GIVEN]), ROWS), self._given)
        while len(self._rings) < given:
            size = _PIECE * _RING
            piece = memoryview(mmap.mmap(self._fd, size, offset=_PAGE + len(self._rings) * _RING))
            rings = [piece[at : at + _RING] for at in range(0, size, _RING)]
            self._rings += [(ring, ring[:_PAGE].cast("d")) for ring in rings]
        return range(given)
