"""Run-once companions: other commands (a scheduler, a queue's worker) beside the workers, one process each.

They are started when the fleet serves, anew after a roll (it may have brought new code), again with backoff
where they end, and are drained with the workers: TERM at the stop, a kill at its deadline. What they print
goes where mooring's output goes.
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mooring.logs.log import Log
from mooring.supervisor.lifecycle import Notice
from mooring.system import process
from mooring.system.accounts import Account

_FIRST, _LONGEST = 0.5, 30.0  # seconds: the wait after a first failure, doubled by each further one
_STABLE = 10.0  # seconds after which a companion's failures are forgotten
_AGAIN = 1.0  # seconds after which one that survives a kill is killed again
_NEVER = float("inf")


class Surroundings(NamedTuple):
    """How a companion runs: environment, working folder, user, and the seconds that a drain may take."""

    environ: Mapping[str, str]
    folder: str
    account: Account | None
    grace: Callable[[], float]


class Companion:
    """One command and its process, if it has one."""

    def __init__(self, command: str) -> None:
        self.words = shlex.split(command)
        self.name = os.path.basename(self.words[0])
        self.pid = 0
        self.starts = 0
        self.failures = 0
        self.born = 0.0
        self.due = _NEVER  # when it is started (again)
        self.deadline = _NEVER  # when it is killed
        self.killed = -_NEVER
        self.last_exit: str | None = None


class Companions:
    """All of them. `stop_deadline` tells the stop's own deadline, once there is one."""

    def __init__(
        self,
        commands: tuple[str, ...],
        around: Surroundings,
        log: Log,
        stop_deadline: Callable[[], float | None],
    ) -> None:
        self.all = [Companion(command) for command in commands]
        self._around, self._log, self._stop_deadline = around, log, stop_deadline
        self._stopping = False

    def told(self, kind: Notice, data: Mapping[str, Any]) -> None:
        """What the lifecycle has announced."""
        now = time.monotonic()
        if kind is Notice.SERVING and not self._stopping:
            for each in self.all:
                each.due = min(each.due, now) if not each.pid else each.due
        elif kind is Notice.ROLLED and not self._stopping:
            for each in self.all:
                each.failures, each.due = 0, now
                self._drain(each, self._around.grace())
        elif kind is Notice.STOPPING:
            self._stopping = True
            for each in self.all:
                each.due = _NEVER
                self._drain(each, data["seconds"])

    def busy(self) -> bool:
        """Whether any is there, while the stop waits for it."""
        return any(each.pid for each in self.all)

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds)."""
        times = [each.due for each in self.all if not each.pid]
        times += [
            max(min(each.deadline, self._stop()), each.killed + _AGAIN) for each in self.all if each.pid
        ]
        soonest = min(times, default=_NEVER)
        return None if soonest == _NEVER else soonest

    def expire(self) -> None:
        """Start what is due; kill what has not left in time."""
        now = time.monotonic()
        for each in self.all:
            if not each.pid and each.due <= now:
                self._start(each, now)
            elif each.pid and min(each.deadline, self._stop()) <= now and now >= each.killed + _AGAIN:
                self._log.error(f"companion {each.name}: grace deadline passed; killing it")
                each.killed = now
                process.kill_group(each.pid)

    def _stop(self) -> float:
        deadline = self._stop_deadline()
        return _NEVER if deadline is None else deadline

    def exited(self, ended: process.Reaped) -> None:
        """A process has ended: one of these, perhaps."""
        for each in self.all:
            if each.pid == ended.pid:
                self._ended(each, process.describe(ended.code), time.monotonic())

    def _ended(self, each: Companion, why: str, now: float) -> None:
        drained = each.deadline != _NEVER
        each.pid, each.deadline, each.last_exit = 0, _NEVER, why
        if self._stopping or drained:
            self._log.debug(f"companion {each.name} has ended: {why}")
            return
        each.failures = 1 if now - each.born >= _STABLE else each.failures + 1
        wait = min(_LONGEST, _FIRST * 2.0 ** min(each.failures - 1, 32))
        each.due = now + wait
        self._log.warning(f"companion {each.name} has ended: {why}; it is started again in {wait:g} s")

    def _drain(self, each: Companion, seconds: float) -> None:
        if each.pid:
            each.deadline = time.monotonic() + seconds
            process.terminate(each.pid)

    def _start(self, each: Companion, now: float) -> None:
        each.due, each.born, each.starts = _NEVER, now, each.starts + 1
        try:
            each.pid = process.spawn(lambda: _become(each.words, self._around), [])
        except OSError as error:
            self._ended(each, f"could not be started: {error.strerror}", now)
            return
        self._log.info(f"companion {each.name} is running, pid {each.pid}")


def _become(words: list[str], around: Surroundings) -> int:
    """In the child: be the command. Its signals are as a shell would leave them."""
    if around.account is not None:
        process.drop_privileges(around.account.uid, around.account.gid, around.account.groups)
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN and number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    environ = dict(around.environ)
    if around.account is not None:
        name = around.account.name
        environ.update(HOME=around.account.home, USER=name, LOGNAME=name)
    try:
        os.chdir(around.folder)
        os.execvpe(words[0], words, environ)  # noqa: S606 (nobody's input but the settings')
    except OSError as error:
        os.write(2, f"mooring: companion {words[0]}: {error.strerror}\n".encode())
        return 127
