"""The world's own books: what really happened to the processes, and what therefore is to be expected.

Kept without looking at how the core comes to its decisions; the invariants compare the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifecycle_world import World

LATE = 0.3
"""The shell wakes up to this many seconds after a deadline."""

TINY = 1e-6


@dataclass(slots=True)
class Process:
    """What the world knows of one worker's process, and what is yet to befall it."""

    serial: int
    slot: int
    generation: int
    born: float
    boots: str  # "well", "crash", "fatal", "never"
    obeys: bool  # whether it drains when told
    kills: int  # how many it takes
    exit_code: int = 3
    alive_at: float = 0.0  # the last beat
    ready_at: float | None = None
    hung: bool = False
    drained_at: float | None = None
    killed_at: float | None = None
    due: bool = False  # for recycling
    policy: Any = None  # of the roll that it came with
    ordered: str | None = None  # the cause of its drain, or of its first kill, by name

    @property
    def live(self) -> bool:
        """Whether it was told neither to drain nor to die."""
        return self.drained_at is None and self.killed_at is None

    @property
    def serving(self) -> bool:
        return self.live and self.ready_at is not None


class Books:
    """What is expected of the fleet, from what was asked of it and from what befell its processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.policy = world.policy  # of the wanted generation
        self.next_policy: Any = None  # of the roll that was asked for last
        self.previous_policy: Any = None  # what a roll that fails goes back to
        self.core = world.core
        self.stop_at: float | None = None  # when it was asked, or the boot failed
        self.stop_by = math.inf
        self.stop_grace = 0.0
        self.stop_now = False
        self.expected_code: int | None = None
        self.booted = False
        self.roll_wanted = False
        self.proven: set[int] = set()
        self.width = self.policy.surge  # how many there may be above the size, as was last measured
        self.measured = False  # since whatever changed it
        self.asked = False  # to measure
        self.retry: dict[int, tuple[int, float]] = {}  # slot: failures in a row, no spawn before
        self.failed_at: dict[int, float] = {}
        self.last_failed_at: dict[int, float] = {}
        self.was = world.fleet  # before the step
        self.rolled_at_once = False  # in this step
        self.boot_failures: list[Process] = []  # in this step
        self.leaver: Process | None = None  # in this step
        self.held_back = 0.0  # how much longer than `reap` kills may take, all in all

    @property
    def stopping(self) -> bool:
        return self.stop_at is not None

    @property
    def gone_first(self) -> bool:
        return not self.policy.overlap or (not self.booted and not self.policy.boot_failures_fatal)

    @property
    def surge(self) -> int:
        """How many there may be above the size now: as was measured, while something is being replaced."""
        width = self.width if self.replacing else max(self.width, int(self.policy.surge))
        return max(1, width) if self.world.size == 1 else width

    @property
    def replacing(self) -> bool:
        rolling = bool(self.world.fleet.state == "rolling")
        return rolling or any(p.due for p in self.world.processes.values())

    @property
    def retires(self) -> bool:
        """Whether not one more fits, so that who is replaced has to leave first."""
        return self.measured and self.width == 0 and self.world.size > 1

    def left(self, process: Process, news: Any) -> None:
        """Note that a process is gone, before the core hears of it."""
        self.measured = False
        self.leaver = process
        self.stable_by(process)
        if not process.live or self.stopping:
            return
        if isinstance(news, self.core.SpawnFailed):
            before = self.failed_at.get(process.slot, self.world.now)
            if self.boots_or_stops() and self.world.now - before >= self.policy.boot_timeout:
                self.stops(3, 0.0)
            else:
                self._count(process.slot)
        else:
            code = news.exit_code if news.fatal and news.exit_code else 3
            self.failure(process, self.world.fleet, boot=process.ready_at is None, code=code)

    def failure(self, process: Process, was: Any, *, boot: bool, code: int) -> None:
        if self.stopping:
            return
        if boot:
            self.boot_failures.append(process)
            if self.boots_or_stops():
                self.stops(code, 0.0)
                return
        self.stable(process.slot)
        if process.ready_at is not None and self.world.now - process.ready_at >= self.policy.stable_after:
            self.forget(process.slot)
            return
        self._pay_off(process)
        self._count(process.slot)
        older = process.generation < was.generation
        rolls_on = was.state == "rolling" and (older or was.generation in self.proven)
        rolls_on = rolls_on or self.rolled_at_once
        if boot and not self.policy.boot_failures_fatal and not rolls_on:
            self.retry[process.slot] = (self.retry[process.slot][0], math.inf)  # until the next roll

    def _pay_off(self, process: Process) -> None:
        """Served for longer than its slot had waited for it: a new row of failures begins."""
        count, policy = self.retry.get(process.slot, (0, 0.0))[0], self.policy
        waited = min(policy.backoff_max, policy.backoff_initial * 2 ** (count - 1))
        ready, last = process.ready_at, self.last_failed_at.get(process.slot, math.inf)
        if ready is not None and ready >= last and self.world.now - ready >= waited:
            self.forget(process.slot)

    def _count(self, slot: int) -> None:
        now, policy = self.world.now, self.policy
        self.stable(slot)
        count = self.retry.get(slot, (0, 0.0))[0] + 1
        shortest = min(policy.backoff_max, policy.backoff_initial * 2 ** (count - 1)) * (1 - policy.jitter)
        self.retry[slot] = (count, now + shortest)
        self.failed_at.setdefault(slot, now)
        self.last_failed_at[slot] = now

    def stable(self, slot: int) -> None:
        """Forget a slot's failures where a worker that came after the last one has been ready long enough."""
        for process in self.world.processes.values():
            if process.slot == slot:
                self.stable_by(process)

    def stable_by(self, process: Process) -> None:
        told = min(process.drained_at or math.inf, process.killed_at or math.inf, self.world.now)
        ready, failed = process.ready_at, self.last_failed_at.get(process.slot, math.inf)
        if ready is not None and ready >= failed and told - ready >= self.policy.stable_after - TINY:
            self.forget(process.slot)

    def forget(self, slot: int) -> None:
        for book in (self.retry, self.failed_at, self.last_failed_at):
            book.pop(slot, None)

    def boots_or_stops(self) -> bool:
        return not self.booted and bool(self.policy.boot_failures_fatal)

    def stops(self, code: int, delay: float) -> None:
        if not self.stopping:
            self.stop_at, self.expected_code = self.world.now, code
            self.stop_grace = self.in_force.grace
            self.stop_by = self.world.now + delay + self.stop_grace

    @property
    def in_force(self) -> Any:
        """What a stop goes by: not by a roll that could still fail."""
        unproven = self.previous_policy is not None and self.world.fleet.generation not in self.proven
        return self.previous_policy if unproven else self.policy

    def rolling(self) -> None:
        """Note that the roll has begun that was asked for."""
        self.roll_wanted = False
        self.previous_policy = self.policy if self.policy.overlap and self.booted else None
        self.policy, self.next_policy = self.next_policy or self.policy, None
        for slot in list(self.retry):
            self.forget(slot)

    def resized(self, size: int) -> None:
        self.measured = self.measured and self.world.size == max(1, size)
        self.world.size = max(1, size)
        for slot in [slot for slot in self.retry if slot >= self.world.size]:
            self.forget(slot)
