"""One process that is kept beside the workers: start it, hear it, start it again, end it.

How often it is started again, and after which waits, is a value: `Restarts`. Not for workers: those are the
lifecycle's. Not for what is said about it: each user has its own words.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from mooring.system import process

NEVER = float("inf")
_NAP = 0.005  # seconds between two looks whether it has ended


class Restarts(NamedTuple):
    """When a process that has ended by itself is started again. Times are in seconds.

    Ends are counted in a row: a life of at least `stable` starts the count anew, at `stable_end`. The first
    `at_once` of them are followed by a new process at once, each further one after a wait: `first`, then
    twice as long each time, `longest` at most. The end that is number `give_up` is the last (0: there is no
    last one).
    """

    stable: float = NEVER
    stable_end: int = 1
    at_once: int = 0
    first: float = 0.0
    longest: float = 0.0
    give_up: int = 0


ONCE = Restarts(give_up=1)


class Child:
    """A process, or the place for one: `pid` is 0 while there is none.

    `due` is when it is to be started, `deadline` when it is to be killed (monotonic seconds). One that
    survives its kill is killed again after `kill_again` seconds.
    """

    def __init__(self, restarts: Restarts = ONCE, *, kill_again: float = 1.0) -> None:
        self.pid = 0
        self.channel = -1  # our end of its pipe or socket; below 0: there is none
        self.due = self.deadline = NEVER
        self._restarts = restarts
        self._kill_again = kill_again
        self._selector: selectors.BaseSelector | None = None
        self._born, self._killed = 0.0, -NEVER
        self._ends, self._wait = 0, self._restarts.first

    def start(
        self, run: Callable[[], int], keep: Collection[int] = (), *, ours: int = -1, theirs: int = -1
    ) -> None:
        """Fork it. It runs `run`, and inherits the descriptors `keep` and `theirs`; `theirs` is closed here.

        `ours` becomes the channel. Raises OSError where the system refuses; then it is closed too.
        """
        self.due = self.deadline = NEVER
        self._born, self._killed = time.monotonic(), -NEVER
        self.channel = ours
        try:
            self.pid = process.spawn(run, [*keep, theirs] if theirs >= 0 else keep)
        except OSError:
            self.deafen()
            raise
        finally:
            if theirs >= 0:
                os.close(theirs)

    # -- the channel -----------------------------------------------------------------------------------------

    def listen(self, selector: selectors.BaseSelector, heard: Callable[[], None]) -> None:
        """Have `heard` called when there is something to read in the channel, and never wait in reading."""
        os.set_blocking(self.channel, False)
        selector.register(self.channel, selectors.EVENT_READ, heard)
        self._selector = selector

    def deafen(self) -> None:
        """Close the channel."""
        if self.channel < 0:
            return
        if self._selector is not None:
            self._selector.unregister(self.channel)
            self._selector = None
        os.close(self.channel)
        self.channel = -1

    # -- its end, and the next one ---------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        """Whether it has been asked to end, by `terminate`: true of one that has ended then, too."""
        return self.deadline < NEVER

    def ended(self, pid: int) -> bool:
        """Whether it is this process that has ended; then `pid` is 0 from now on. The channel stays open."""
        if not self.pid or pid != self.pid:
            return False
        self.pid = 0
        return True

    def failed(self) -> float:
        """Count its end as a failure. Returns the seconds until the next start; NEVER: there is none."""
        rules = self._restarts
        if time.monotonic() - self._born >= rules.stable:
            self.forgive()
            self._ends = rules.stable_end
        else:
            self._ends += 1
        if rules.give_up and self._ends >= rules.give_up:
            return NEVER
        if self._ends <= rules.at_once:
            self.due = time.monotonic()
            return 0.0
        return self.put_off()

    def put_off(self) -> float:
        """Have it started after the next wait. Returns that wait in seconds."""
        wait, self._wait = self._wait, min(2 * self._wait, self._restarts.longest)
        self.due = time.monotonic() + wait
        return wait

    def forgive(self) -> None:
        """Forget the failures."""
        self._ends, self._wait = 0, self._restarts.first

    # -- time ------------------------------------------------------------------------------------------------

    def next_deadline(self, stop: float = NEVER) -> float | None:
        """When it is to be started, or killed: at `stop`, everybody's deadline, where that is sooner."""
        moment = self.due if not self.pid else max(min(self.deadline, stop), self._killed + self._kill_again)
        return None if moment == NEVER else moment

    def is_due(self) -> bool:
        """Whether it is to be started now."""
        return not self.pid and self.due <= time.monotonic()

    def is_overdue(self, stop: float = NEVER) -> bool:
        """Whether it is to be killed now."""
        if not self.pid:
            return False
        moment = self.next_deadline(stop)
        return moment is not None and moment <= time.monotonic()

    # -- ending it -------------------------------------------------------------------------------------------

    def terminate(self, seconds: float) -> None:
        """Ask it to end, by TERM. After so many seconds it is overdue: it is to be killed."""
        if self.pid:
            self.deadline = time.monotonic() + seconds
            process.send(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and its process group; `ended` is yet to be told."""
        if self.pid:
            self._killed = time.monotonic()
            process.kill_group(self.pid)

    def abandon(self) -> None:
        """Kill it and forget it: whoever reaps the children reaps it."""
        self.kill()
        self.pid = 0
        self.deafen()

    def stop(self, patience: float = 0.0) -> None:
        """At the supervisor's own end: give it so many seconds to end by itself, then kill it; reap it.

        Not by a pidfd: not every Python, kernel and sandbox has them.
        """
        deadline = time.monotonic() + patience
        with suppress(ChildProcessError):  # it was reaped
            while self.pid and not os.waitpid(self.pid, os.WNOHANG)[0]:
                if time.monotonic() >= deadline:
                    self.kill()
                    os.waitpid(self.pid, 0)
                    break
                time.sleep(_NAP)
        self.pid = 0
        self.deafen()
