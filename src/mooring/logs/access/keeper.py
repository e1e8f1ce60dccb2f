"""Keeps the log writer running: starts it, starts it again when it was killed, lets it finish at the end."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from time import monotonic, sleep
from typing import NamedTuple

from mooring.logs.access.writer import HUNDREDTHS, Pipes, run
from mooring.logs.log import Log, LogFiles
from mooring.scoreboard.ring import Rings
from mooring.system import process

_SHORT, _MOST = 1.0, 10  # so many lives shorter than a second, and it is given up
_RETRY, _RETRY_MOST = 1.0, 60.0  # seconds after which it is tried again where the system has refused
_NAP = 0.005  # seconds
_LAST_WAIT, _LEAST_WAIT = 1.0, 0.25  # seconds that the log's reader has at the end; where grace is over
_SPARE = 1.0  # seconds that the log writer has beyond that to end by itself


class Access(NamedTuple):
    """What a worker needs to put its lines into its ring."""

    rings: int
    wake: int


class LogKeeper:
    """Owns the rings of the access log, which goes to the descriptor `access`. Raises OSError."""

    def __init__(self, access: int, files: LogFiles, log: Log) -> None:
        self.rings = Rings()
        self.pid = 0
        self.deadline: float | None = None  # of the stop (monotonic seconds), to be kept to by `close`
        self._access, self._files, self._log = access, files, log
        self._born = 0.0
        self._failures = 0
        self._retry_at: float | None = None
        self._retry = _RETRY
        self._read, self._write = os.pipe()

    @property
    def keep(self) -> list[int]:
        """The descriptors that workers have to keep."""
        return [self.rings.fd, self.rings.wake]

    def start(self) -> None:
        """Fork it. Where the system refuses, `expire` tries again."""
        pipes = Pipes(self.rings.fd, self.rings.wake, self._read, self._access)
        keep = [*pipes, self._log.fd, *(fd for _, fd in self._files.opened)]
        self._born = monotonic()
        self._retry_at = None
        try:
            self.pid = process.spawn(lambda: run(pipes, self._files, self._log), keep)
        except OSError as error:
            again = f"trying again in {self._retry:g} s"
            self._log.error(f"the access log's writer could not be started: {error.strerror}; {again}")
            self._put_off()

    def _put_off(self) -> None:
        self._retry_at = monotonic() + self._retry
        self._retry = min(2 * self._retry, _RETRY_MOST)

    def next_deadline(self) -> float | None:
        """When to try again, where the system has refused to start it."""
        return self._retry_at

    def expire(self) -> None:
        """Try again, if it is time."""
        if self._retry_at is not None and monotonic() >= self._retry_at:
            self.start()

    def exited(self, ended: process.Reaped) -> None:
        """Start it again, if it is the one that has ended. What was in the rings is still there."""
        if ended.pid != self.pid:
            return
        self.pid = 0
        if monotonic() - self._born < _SHORT:
            self._failures += 1
        else:
            self._failures, self._retry = 0, _RETRY
        why = process.describe(ended.code)
        if self._failures >= _MOST:
            again = f"trying again in {self._retry:g} s; what the rings cannot hold is dropped and counted"
            self._log.error(f"the access log's writer ends again and again ({why}); {again}")
            self._put_off()
            return
        self._log.warning(f"the access log's writer has ended ({why}); starting another")
        self.start()

    def reopen(self) -> None:
        """Have it open its files anew."""
        if self.pid:
            process.reopen_logs(self.pid)
        else:
            self.start()

    def close(self) -> None:
        """Let it write what is left, and end it: a reader that has stopped reading must not hold the stop."""
        if not self.pid:
            self.start()  # it was put off
        left = _LAST_WAIT if self.deadline is None else self.deadline - monotonic()
        left = max(_LEAST_WAIT, min(_LAST_WAIT, left))
        if self.pid:
            os.write(self._write, bytes([int(left * HUNDREDTHS)]))  # it can tell this from our sudden end
        os.close(self._write)
        if self.pid:
            _wait(self.pid, left + _SPARE)
        os.close(self._read)
        self.rings.close()


def _wait(pid: int, seconds: float) -> None:
    """Wait for a child to end; then it is killed. Not by a pidfd: not every Python, kernel and sandbox has
    them.
    """
    deadline = monotonic() + seconds
    with suppress(ChildProcessError):  # it was reaped
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            sleep(_NAP)
