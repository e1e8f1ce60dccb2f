"""A world for the lifecycle to live in: a virtual clock, bad processes, users who change their mind.

One seed is one schedule. The world executes what the core asks for, with random delays and faults, and keeps
its own books: what it checks (in lifecycle_invariants.py) it checks on what really happened to the processes.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import ModuleType
from typing import Any

from lifecycle_books import LATE, Process
from lifecycle_invariants import Invariants
from lifecycle_schedule import plan_users, random_policy, random_times

FREEZE = 30.0
"""Longer than any deadline of the policies here."""


class World:
    """One schedule, from the first tick until the supervisor is gone."""

    def __init__(self, core: ModuleType, seed: int) -> None:
        self.core = core
        self.random = rng = Random(seed)
        self.policy = random_policy(core, rng)
        self.policies = [self.policy]  # all that were ever given
        self.now = self.start = rng.choice([0.0, 1000.0, 4e6])
        self.calm_at = self.start + rng.choice([5.0, 15.0, 40.0])
        # A development server whose application couldn't boot waits for the next edit: let there be one.
        self.quiet_at = self.calm_at + (0.0 if self.policy.boot_failures_fatal else 10.0)
        self.trouble = rng.choice([0.0, 0.05, 0.2, 0.5])
        self.processes: dict[int, Process] = {}
        self.heap: list[tuple[float, int, Callable[[], Any]]] = []
        self.count = 0
        self.size = rng.choice([1, 1, 1, 3])
        self.fleet = core.new_fleet(self.policy, self.size)
        self.trace: list[tuple[float, Any, Any, tuple[Any, ...]]] = []
        self.steps = 0
        self.gone = False
        self.exit_code: int | None = None
        self.no_forks = rng.random() < 0.03
        self.easy_boot = rng.random() < 0.8  # most trouble is more interesting once there is a fleet
        self.widths = rng.choice([[0], [0], [1], [0, 1, 2], [0, 1, 4]])
        self.bad_generations = {g for g in range(2, 40) if rng.random() < self.trouble / 2}
        self.invariants = Invariants(self)
        plan_users(self)

    # -- time ----------------------------------------------------------------------------------------------

    @property
    def calm(self) -> bool:
        return self.now >= self.calm_at

    def at(self, when: float, what: Callable[[], Any]) -> None:
        self.count += 1
        heapq.heappush(self.heap, (when, self.count, what))

    def after(self, seconds: float, what: Callable[[], Any]) -> None:
        self.at(self.now + seconds, what)

    def run(self) -> None:
        """Live until calm, until converged, then until the supervisor is gone."""
        self.step(self.core.Tick())
        while not self.gone:
            if self.calm and not self.invariants.stopping and self.invariants.converged():
                self.step(self.core.Stop() if self.random.random() < 0.8 else self.core.StopNow())
                continue
            self._once()
        for event in (
            self.core.Stop(),
            self.core.StopNow(),
            self.core.Roll(),
            self.core.Tick(),
            self.noise(),
        ):
            _, actions = self.core.step(self.fleet, event, self.now + 100)
            assert not actions, f"{event} woke the dead: {actions}"

    def _once(self) -> None:
        due = self.core.next_deadline(self.fleet)
        late = self.random.choice((0.0, 0.0, 0.01, LATE))
        wake = None if due is None else max(self.now, due + late)
        if self.heap and (wake is None or self.heap[0][0] <= wake):
            when, _, what = heapq.heappop(self.heap)
            self.now = max(self.now, when)
            event = what()
            if event is not None:
                self.step(event)
        else:
            assert wake is not None, "the world has come to a standstill: no deadline, and nothing to happen"
            self.now = wake
            self.step(self.core.Tick())

    # -- stepping ------------------------------------------------------------------------------------------

    def step(self, event: Any) -> None:
        """Tell the core, check, execute."""
        self.steps += 1
        before = self.fleet
        self.invariants.before(event)
        after, actions = self.core.step(before, event, self.now)
        self.trace.append((self.now, event, after, actions))
        if self.steps % 50 == 0:
            assert self.core.step(before, event, self.now) == (after, actions), "a step is not repeatable"
        self.fleet = after
        for action in actions:
            self.execute(action)
        self.invariants.after(actions)

    def story(self, last: int = 60) -> str:
        """Tell what happened, for whoever has to find out why."""
        lines = [f"{self.policy}", f"... the last of {self.steps} steps, seconds since the start:"]
        for when, event, fleet, actions in self.trace[-last:]:
            workers = " ".join(
                f"{w.serial}/{w.slot}:g{w.generation}:{w.state}" for w in fleet.workers.values()
            )
            lines.append(f"{when - self.start:9.3f} {event} -> {fleet.state} g{fleet.generation} [{workers}]")
            lines += [f"            {action}" for action in actions]
        return "\n".join(lines)

    def execute(self, action: Any) -> None:
        core = self.core
        if isinstance(action, core.Announce):
            self.invariants.announced(action.kind, action.data)
        elif isinstance(action, core.Spawn):
            self.invariants.spawned(action)
            self.spawn(action)
        elif isinstance(action, core.Drain):
            self.invariants.drained(action)
            self.drain(self.processes[action.serial])
        elif isinstance(action, core.Kill):
            self.invariants.killed(action)
            self.kill(self.processes[action.serial])
        elif isinstance(action, core.Measure):
            self.invariants.measuring()
            self.after(self.random.choice([0.0, 0.0, 0.0, 0.4]), self.measured)
        else:
            self.invariants.exited(action.code)
            self.gone, self.exit_code = True, action.code

    def measured(self) -> Any:
        """Say how many more processes there is memory for."""
        return self.core.Surge(self.random.choice(self.widths))

    # -- processes -----------------------------------------------------------------------------------------

    def unlucky(self, factor: float = 1.0) -> bool:
        lucky = self.calm or (self.easy_boot and not self.invariants.booted)
        return not lucky and self.random.random() < self.trouble * factor

    def spawn(self, action: Any) -> None:
        serial, rng = action.serial, self.random
        boots = "well"
        if self.unlucky() or (not self.calm and action.generation in self.bad_generations):
            boots = rng.choice(["crash", "fatal", "never"])
        kills = rng.choice([2, 5]) if self.unlucky(0.3) else 1
        process = Process(serial, action.slot, action.generation, self.now, boots, not self.unlucky(), kills)
        process.exit_code = rng.choice([2, 3])
        process.policy = self.invariants.policy
        self.processes[serial] = process
        if self.unlucky(0.5) or (self.no_forks and not self.calm):
            self.after(0.0, lambda: self.leave(serial, self.core.SpawnFailed(serial, errno.EAGAIN)))
        elif boots == "well":
            self.after(rng.choice([0.0, 0.1, 1.0, 3.0]), lambda: self.ready(serial))
        elif boots != "never":
            cause = self.core.Cause.FAILED if boots == "fatal" else self.core.Cause.ENDED_EARLY
            why = self.core.Reason(cause, boots)
            news = self.core.Exited(serial, why, process.exit_code, boots == "fatal")
            self.after(rng.choice([0.0, 0.5, 2.0]), lambda: self.leave(serial, news, unless_told=True))

    def ready(self, serial: int) -> Any:
        process = self.processes.get(serial)
        if process is None:
            return None
        if process.live:
            process.ready_at = process.alive_at = self.now
            self.invariants.proven.add(process.generation)
            if process.policy.heartbeat_timeout:
                self.after(process.policy.heartbeat_timeout * 0.7, lambda: self.beat(serial))
            if self.unlucky():
                fate = self.random.choice([self.crash, self.hang])
                self.after(self.random.choice([0.0, 0.5, 2.0, 6.0, 12.0]), lambda: fate(serial))
        return self.core.Ready(serial)  # even where it was told to drain: the messages crossed

    def beat(self, serial: int) -> Any:
        process = self.processes.get(serial)
        if process is None or process.hung:
            return None
        process.alive_at = self.now
        assert process.policy.heartbeat_timeout
        self.after(process.policy.heartbeat_timeout * 0.7, lambda: self.beat(serial))
        return self.core.Beat(serial) if self.random.random() < 0.5 else self.look()

    def look(self) -> Any:
        """The shell's look at everybody: who has moved, in one event, and somebody who is long gone."""
        moved = [p for p in self.processes.values() if p.ready_at is not None and not p.hung]
        for process in moved:
            process.alive_at = self.now
        return self.core.Beats((*(process.serial for process in moved), 10**9))

    def crash(self, serial: int) -> Any:
        if self.calm:
            return None
        if self.random.random() < 0.3:
            self.after(self.random.random(), self.core.Roll)  # somebody thinks that they have mended it
        return self.leave(serial, self.exited(serial, "SIGNAL"))

    def crash_one(self) -> Any:
        serials = [process.serial for process in self.processes.values() if process.serving]
        return self.crash(self.random.choice(serials)) if serials and self.unlucky() else None

    def hang(self, serial: int) -> None:
        if serial in self.processes and not self.calm:
            self.processes[serial].hung = True

    def leave(self, serial: int, news: Any, *, unless_told: bool = False) -> Any:
        process = self.processes.get(serial)
        if process is None or (unless_told and not process.live):
            return None
        self.invariants.left(self.processes.pop(serial), news)
        return news

    def exited(self, serial: int, cause: str, code: int | None = None) -> Any:
        return self.core.Exited(serial, self.core.Reason(self.core.Cause[cause]), code)

    def drain(self, process: Process) -> None:
        process.drained_at = self.now
        if process.obeys and not process.hung:
            seconds = self.random.choice([0.0, 0.2, 1.0, 3.0])
            news = self.exited(process.serial, "CLEAN_EXIT", 0)
            self.after(seconds, lambda: self.leave(process.serial, news))

    def kill(self, process: Process) -> None:
        process.killed_at = self.now
        process.kills -= 1
        if process.kills <= 0 or self.calm:
            seconds = self.random.choice([0.0, 0.01, self.policy.reap * 0.9])
            news = self.exited(process.serial, "SIGNAL")
            self.after(seconds, lambda: self.leave(process.serial, news))

    # -- what befalls the world ----------------------------------------------------------------------------

    def freeze(self) -> Any:
        """Stand still for a while, supervisor and workers alike (docker pause)."""
        self.now += FREEZE
        self.calm_at += FREEZE
        self.quiet_at += FREEZE
        self.heap = [(when + FREEZE, number, what) for when, number, what in self.heap]
        for process in self.processes.values():
            process.born = process.alive_at = self.now
        self.invariants.held_back += FREEZE
        return self.core.Tick()

    def roll(self) -> Any:
        """A roll, often with new settings."""
        if self.random.random() < 0.4:
            return self.core.Roll()
        edition = len(self.policies)
        self.policies.append(replace(self.policy, **random_times(self.random), edition=edition))
        return self.core.Roll(self.policies[-1])

    def recycle(self) -> Any:
        serials = [p.serial for p in self.processes.values()]
        if not serials:
            return None
        serial = self.random.choice(serials)
        self.processes[serial].due |= self.processes[serial].serving
        return self.core.RecycleDue(serial)

    def noise(self) -> Any:
        core, rng = self.core, self.random
        serial = 10**9
        kinds = [core.Ready, core.Beat, core.RecycleDue, core.Exited, core.Surge]
        kinds.append(lambda one: core.SpawnFailed(one, errno.EAGAIN))
        kinds.append(lambda one: core.Beats((one, one + 1)))
        return rng.choice(kinds)(serial)
