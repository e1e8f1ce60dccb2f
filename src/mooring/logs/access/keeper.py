"""Keeps the log writer running: starts it, starts it again when it was killed, lets it finish at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from mooring.logs.access.writer import HUNDREDTHS, Pipes, run
from mooring.logs.log import Log, LogFiles
from mooring.scoreboard.ring import Rings
from mooring.system import process
from mooring.system.child import Child, Restarts

# Ten lives in a row shorter than a second, and it is tried again later; likewise where the system refuses.
_RESTARTS = Restarts(stable=1.0, stable_end=0, at_once=9, first=1.0, longest=60.0)
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
        self.deadline: float | None = None  # of the stop (monotonic seconds), to be kept to by `close`
        self._access, self._files, self._log = access, files, log
        self._writer = Child(_RESTARTS)
        self._read, self._write = os.pipe()

    @property
    def pid(self) -> int:
        """The log writer's; 0: there is none now."""
        return self._writer.pid

    @property
    def keep(self) -> list[int]:
        """The descriptors that workers have to keep."""
        return [self.rings.fd, self.rings.wake]

    def start(self) -> None:
        """Fork it. Where the system refuses, `expire` tries again."""
        pipes = Pipes(self.rings.fd, self.rings.wake, self._read, self._access)
        keep = [*pipes, self._log.fd, *(fd for _, fd in self._files.opened)]
        try:
            self._writer.start(lambda: run(pipes, self._files, self._log), keep)
        except OSError as error:
            again = f"trying again in {self._writer.put_off():g} s"
            self._log.error(f"the access log's writer could not be started: {error.strerror}; {again}")

    def next_deadline(self) -> float | None:
        """When to try again, where it was put off."""
        return self._writer.next_deadline()

    def expire(self) -> None:
        """Start it, if it is time."""
        if self._writer.is_due():
            self.start()

    def exited(self, ended: process.Reaped, /) -> None:
        """Start it again, if it is the one that has ended. What was in the rings is still there."""
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
        """It writes whatever becomes of the workers."""

    def busy(self) -> bool:
        """It is ended by `close`, last of all."""
        return False

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
        self._writer.stop(left + _SPARE)
        os.close(self._read)
        self.rings.close()
