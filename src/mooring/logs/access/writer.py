"""The log writer: the process beside the supervisor that empties the workers' rings into the access log.

It may wait for the log's reader, and no other process waits for it: while it waits the rings fill up, and
then workers drop whole lines and count them. If the supervisor is killed, the log writer still writes what
the rings hold, then ends. Not for starting it (keeper.py).
"""

from __future__ import annotations

import os
import select
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import NamedTuple

from mooring.logs.log import Log, LogFiles
from mooring.logs.sink import Rest
from mooring.scoreboard.ring import DELAY, FULL, SIZE, Reader
from mooring.system import process

# A write up to PIPE_BUF is atomic on a pipe, so that what others write there doesn't mix with our lines:
# pipe(7).
PIPE_BUF = 4096
HUNDREDTHS = 100  # per second: the unit in which the supervisor says how long the log's reader has at the end
_LAST_WAIT = 1.0  # seconds that the log's reader has at the end if the supervisor was killed
_LINGER = 3 * DELAY  # seconds of looking after a wake-up: a worker wakes us only once in DELAY
_STUCK = 0.1  # seconds between two looks at the rings while the log takes nothing
METRIC = "mooring_access_log_dropped_lines_total"
_ORPHANED = 0.3  # seconds of looking after the supervisor was killed: its workers die a little later
_LAST_LOOK = 1.0  # seconds until one more look: a worker that lost the processor woke us too early
_QUIET = 60.0  # seconds without a lost line after which the next one is logged again


class Pipes(NamedTuple):
    """The log writer's descriptors: the rings' memory, their eventfd, a pipe that ends with the supervisor,
    and the access log.
    """

    rings: int
    wake: int
    control: int
    access: int


def run(pipes: Pipes, files: LogFiles, log: Log) -> int:
    """Write until the supervisor has gone, or asks for the end. Returns 0."""
    process.outlive_parent()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # it ends last, after the workers' last lines
    signal.signal(signal.SIGUSR1, lambda *_: files.reopen())
    LogWriter(pipes, log).run()
    return 0


class LogWriter:
    """Reads the rings whenever it is woken, and for a while afterwards."""

    def __init__(self, pipes: Pipes, log: Log) -> None:
        self._fd, self._wake, self._control = pipes.access, pipes.wake, pipes.control
        self._log = log
        self._reader = Reader(pipes.rings)
        self._piece = FULL if stat.S_ISREG(os.fstat(self._fd).st_mode) else PIPE_BUF
        self._rest = Rest(self._fd)
        self._deadline: float | None = None  # for the last lines, once the supervisor is gone
        self._look_until = 0.0
        self._told = -_QUIET
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        self._out = select.poll()
        self._out.register(self._fd, select.POLLOUT)
        self._out.register(self._control, select.POLLIN)

    def run(self) -> None:
        """Write until the control pipe ends."""
        awake = monotonic() + _LINGER  # an earlier log writer may have been killed before it wrote all
        again = True
        while self._deadline is None:
            wait: float | None = DELAY
            if monotonic() >= awake:
                wait, again = (_LAST_LOOK if again else None), False
            events = self._poll.poll(wait and wait * 1000)
            for fd, _ in events:
                if fd == self._wake:
                    awake, again = monotonic() + _LINGER, True
                    with suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                else:
                    self._end()
            self._empty()
        while monotonic() < self._look_until:
            sleep(DELAY)
            self._empty()
        self._reader.lost(self._rest.lines)

    def _end(self) -> None:
        """Set the deadline: the workers have ended, or the supervisor was killed and they will end soon."""
        if self._deadline is None:
            now = monotonic()
            told = os.read(self._control, 1)
            self._deadline = now + (told[0] / HUNDREDTHS if told else _LAST_WAIT)
            self._look_until = now if told else now + _ORPHANED
            self._out.unregister(self._control)

    def _empty(self) -> None:
        for index in self._reader.indices():
            lines = self._reader.take(index)
            if len(lines) > SIZE - PIPE_BUF:
                self._tell("has a reader that is too slow")
            for piece in pieces(lines, self._piece):
                if lost := self._put(piece):
                    self._reader.lost(lost)
                    self._tell("cannot be written")
                self._reader.done(index, len(piece))

    def _put(self, piece: bytes) -> int:
        """Write whole lines; returns how many were not written, without one that a full disk has cut off."""
        due = self._rest.due()
        lost = 0 if due else self._rest.lines
        data = due + piece
        left = memoryview(data)
        while left:
            try:
                if not self._writable():
                    break
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                continue  # another process has filled the pipe: wait again
            except OSError:
                break
        at = len(data) - len(left)
        cut = bool(left) and (data[at - 1 : at] != b"\n" if at else bool(due))
        end = (data.find(b"\n", at) + 1 or len(data)) if cut else at
        self._rest.keep(data[at:end])
        return lost + data.count(b"\n", end)

    def _writable(self) -> bool:
        """Wait until the log takes more; False once the time for the last lines is over."""
        while True:
            left = None if self._deadline is None else self._deadline - monotonic()
            if left is not None and left <= 0:
                return False
            for fd, _ in self._out.poll(_STUCK * 1000):
                if fd == self._fd:
                    return True
                self._end()
            if self._is_full():
                self._tell("has a reader that is too slow")

    def _is_full(self) -> bool:
        return any(self._reader.held(index) > SIZE - PIPE_BUF for index in self._reader.indices())

    def _tell(self, why: str) -> None:
        """Log the warning once, not for each line."""
        now = monotonic()
        if now - self._told >= _QUIET:
            self._log.warning(f"the access log {why}: lines are dropped, and counted in {METRIC}")
        self._told = now


def pieces(data: bytes, limit: int) -> Iterator[bytes]:
    """Whole lines in pieces of at most `limit` bytes; a longer line is a piece of its own."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + limit) + 1
        if not end:
            end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
