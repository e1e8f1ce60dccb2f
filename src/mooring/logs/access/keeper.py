"""Keeps the log writer running: starts it, starts it again when it has ended, lets it finish at the stop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from signal import SIGUSR1
from time import monotonic
from typing import Any, NamedTuple

from mooring.logs.access.writer import HUNDREDTHS, Pipes, run
from mooring.logs.log import Log, LogFiles
from mooring.scoreboard.ring import Rings
from mooring.system import process
from mooring.system.child import Child, Restarts

# The next start comes after a wait where ten lives in a row were shorter than a second, and where the system
# refuses to start a process.
_RESTARTS = Restarts(stable=1.0, stable_end=0, at_once=9, first=1.0, longest=60.0)
_LAST_WAIT, _LEAST_WAIT = 1.0, 0.25  # seconds for the log's reader at the stop; after the grace period
_SPARE = 1.0  # seconds more for the log writer to end by itself


class Access(NamedTuple):
    """The descriptors by which a worker puts lines into its ring: the rings' memory, the writer's eventfd."""

    rings: int
    wake: int


class LogKeeper:
    """Owns the access log's rings and its writer, which writes to the descriptor `access`. Raises OSError."""

    def __init__(self, access: int, files: LogFiles, log: Log) -> None:
        self.rings = Rings()
        self.deadline: float | None = None  # of the stop (monotonic seconds): `close` keeps to it
        self._access, self._files, self._log = access, files, log
        self._writer = Child(_RESTARTS)
        self._read, self._write = os.pipe()

    @property
    def pid(self) -> int:
        """The log writer's pid; 0: none runs."""
        return self._writer.pid

    @property
    def keep(self) -> list[int]:
        """The descriptors that workers have to inherit."""
        return [self.rings.fd, self.rings.wake]

    def start(self) -> None:
        """Fork the log writer. Where the system refuses, `expire` tries again after a wait."""
        pipes = Pipes(self.rings.fd, self.rings.wake, self._read, self._access)
        keep = [*pipes, self._log.fd, *(fd for _, fd in self._files.opened)]
        try:
            self._writer.start(lambda: run(pipes, self._files, self._log), keep)
        except OSError as error:
            again = f"trying again in {self._writer.put_off():g} s"
            self._log.error(f"the access log's writer could not be started: {error.strerror}; {again}")

    def next_deadline(self) -> float | None:
        """When the log writer is to be started again (monotonic seconds); None: not now."""
        return self._writer.next_deadline()

    def expire(self) -> None:
        """Start the log writer if that is due."""
        if self._writer.is_due():
            self.start()

    def exited(self, ended: process.Reaped, /) -> None:
        """If the log writer has ended, start it again. The lines in the rings are kept."""
        if not self._writer.ended(ended.pid):
            return
        why = process.describe(ended.code)
        wait = self._writer.failed()
        if wait:
            again = f"trying again in {wait:g} s; what the rings cannot hold is dropped and counted"
            self._log.error(f"the access log's writer ends again and again ({why}); {again}")
            return
        self._log.warning(f"the access log's writer has ended ({why}); starting another")
        self.start()

    def told(self, _kind: str, _data: Mapping[str, Any], /) -> None:
        """Does nothing: the log writer does not depend on the workers' states."""

    def busy(self) -> bool:
        """False: the stop does not wait here; `close` ends the log writer, after everything else."""
        return False

    def reopen(self) -> None:
        """Have the log writer open its files again."""
        if self.pid:
            process.send(self.pid, SIGUSR1)
        else:
            self.start()

    def close(self) -> None:
        """Let the log writer write what is left, then end it.

        The time is limited: a log's reader that has stopped reading must not delay the stop for ever.
        """
        if not self.pid:
            self.start()  # its start was put off, and lines may be left in the rings
        left = _LAST_WAIT if self.deadline is None else self.deadline - monotonic()
        left = max(_LEAST_WAIT, min(_LAST_WAIT, left))
        if self.pid:
            # Where the pipe ends without this byte, the supervisor was killed.
            os.write(self._write, bytes([int(left * HUNDREDTHS)]))
        os.close(self._write)
        self._writer.stop(left + _SPARE)
        os.close(self._read)
        self.rings.close()
