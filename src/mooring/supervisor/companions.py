"""Companions: other commands (a scheduler, a queue's worker) beside the workers, one process each.

A companion starts when the fleet serves, again after a roll (there may be new code), and again with backoff
when it has ended. A stop sends it TERM, and kills it at the stop's deadline. Its output goes where mooring's
output goes.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any

from mooring.supervisor.lifecycle import Notice
from mooring.supervisor.part import Part
from mooring.system import process, signals
from mooring.system.child import NEVER, Child, Restarts
from mooring.worker.context import Context

_RESTARTS = Restarts(stable=10.0, first=0.5, longest=30.0)


class Companion(Child):
    """One command, and its process while it runs."""

    def __init__(self, command: str) -> None:
        super().__init__(_RESTARTS)
        self.words = shlex.split(command)
        self.name = os.path.basename(self.words[0])
        self.starts = 0
        self.last_exit: str | None = None


class Companions(Part):
    """All companions. `grace` returns the seconds that a drain may take, `stop_deadline` the stop's deadline
    (monotonic seconds; None: no stop has begun).
    """

    def __init__(
        self,
        commands: tuple[str, ...],
        context: Context,
        grace: Callable[[], float],
        stop_deadline: Callable[[], float | None],
    ) -> None:
        self.all = [Companion(command) for command in commands]
        self._log = context.log
        self._context, self._grace, self._stop_deadline = context, grace, stop_deadline
        self._stopping = False

    def told(self, kind: Notice, data: Mapping[str, Any], /) -> None:
        """React to a notice of the lifecycle."""
        now = time.monotonic()
        if kind is Notice.SERVING and not self._stopping:
            for each in self.all:
                each.due = min(each.due, now) if not each.pid else each.due
        elif kind is Notice.ROLLED and not self._stopping:
            for each in self.all:
                each.forgive()
                each.due = now
                each.terminate(self._grace())
        elif kind is Notice.STOPPING:
            self._stopping = True
            for each in self.all:
                each.due = NEVER
                each.terminate(data["seconds"])

    def busy(self) -> bool:
        """Whether a companion still runs; a stop waits for it."""
        return any(each.pid for each in self.all)

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds)."""
        times = [each.next_deadline(self._stop()) for each in self.all]
        return min((moment for moment in times if moment is not None), default=None)

    def expire(self) -> None:
        """Start the companions that are due; kill those that have not ended in time."""
        for each in self.all:
            if each.is_due():
                self._start(each)
            elif each.is_overdue(self._stop()):
                self._log.error(f"companion {each.name}: grace deadline passed; killing it")
                each.kill()

    def _stop(self) -> float:
        deadline = self._stop_deadline()
        return NEVER if deadline is None else deadline

    def exited(self, ended: process.Reaped, /) -> None:
        """React to the end of a process that is not a worker; it may be a companion."""
        for each in self.all:
            if each.ended(ended.pid):
                self._ended(each, process.describe(ended.code))

    def _ended(self, each: Companion, why: str) -> None:
        each.last_exit = why
        if self._stopping or each.ending:
            self._log.debug(f"companion {each.name} has ended: {why}")
            return
        wait = each.failed()
        self._log.warning(f"companion {each.name} has ended: {why}; it is started again in {wait:g} s")

    def _start(self, each: Companion) -> None:
        each.starts += 1
        try:
            each.start(lambda: _become(each.words, self._context))
        except OSError as error:
            self._ended(each, f"could not be started: {error.strerror}")
            return
        self._log.info(f"companion {each.name} is running, pid {each.pid}")


def _become(words: list[str], context: Context) -> int:
    """In the child: execute the command, with the signal handling that a shell would give it."""
    account = context.account
    if account is not None:
        process.drop_privileges(account.uid, account.gid, account.groups)
    signals.reset_for_program()
    environ = dict(context.environ)
    if account is not None:
        environ.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
    try:
        os.chdir(context.folder)
        os.execvpe(words[0], words, environ)  # noqa: S606 (the words come from the settings)
    except OSError as error:
        os.write(2, f"mooring: companion {words[0]}: {error.strerror}\n".encode())
        return 127
