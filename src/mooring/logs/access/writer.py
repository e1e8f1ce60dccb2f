"""The log writer: the process beside the supervisor that empties the workers' rings into the access log.

It may wait for the log's reader, and nobody waits for it: while it does, the rings fill, and then workers
drop whole lines and count them. It outlives a supervisor that is killed, for as long as it takes to write
what is there. Not for starting it (keeper.py).
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
HUNDREDTHS = 100  # of a second, in which the supervisor says how long the log's reader has at the end
_LAST_WAIT = 1.0  # seconds that it has where the supervisor was killed
_LINGER = 3 * DELAY  # a worker wakes us once in DELAY: what it wrote since is found by looking
_STUCK = 0.1
METRIC = "mooring_access_log_dropped_lines_total"
_ORPHANED = 0.3  # seconds that it goes on looking after its supervisor was killed: the workers die after it
_LAST_LOOK = 1.0  # seconds after which it looks once more: a worker that lost the processor woke us too early
_QUIET = 60.0  # seconds without a lost line after which the next one is told of again


class Pipes(NamedTuple):
    """What it works with: the rings' memory, their eventfd, a pipe that ends with the supervisor, and the
    log.
    """

    rings: int
    wake: int
    control: int
    access: int


def run(pipes: Pipes, files: LogFiles, log: Log) -> int:
    """Write until the supervisor is gone, or wants an end. Returns 0."""
    process.outlive_parent()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # it goes last, when the workers have said what they had to say
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
        self._deadline: float | None = None  # of the last lines, once the supervisor is gone
        self._look_until = 0.0
        self._told = -_QUIET
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        self._out = select.poll()
        self._out.register(self._fd, select.POLLOUT)
        self._out.register(self._control, select.POLLIN)

    def run(self) -> None:
        """Until the control pipe ends."""
        awake = monotonic() + _LINGER  # another one may have been killed before it had written all
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
        """The supervisor wants an end: its workers are gone. Or it was killed: they are about to be."""
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
        """Write whole lines; returns how many it could not, without the one that a full disk has cut off."""
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
                continue  # somebody else was faster: wait again
            except OSError:
                break
        at = len(data) - len(left)
        cut = bool(left) and (data[at - 1 : at] != b"\n" if at else bool(due))
        end = (data.find(b"\n", at) + 1 or len(data)) if cut else at
        self._rest.keep(data[at:end])
        return lost + data.count(b"\n", end)

    def _writable(self) -> bool:
        """Wait until the log takes more; False once the last lines' time is over."""
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
        """Say it once, not for each line."""
        now = monotonic()
        if now - self._told >= _QUIET:
            self._log.warning(f"the access log {why}: lines are dropped, and counted in {METRIC}")
        self._told = now


def pieces(data: bytes, limit: int) -> Iterator[bytes]:
    """Whole lines in pieces of at most `limit` bytes; a line that is longer by itself is a piece of its
    own.
    """
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + limit) + 1
        if not end:
            end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
