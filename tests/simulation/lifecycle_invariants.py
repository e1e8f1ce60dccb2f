"""What must always hold, checked after every step on the world's own books.

The names are those of docs/lifecycle.md. The core's fleet is looked at only where the promise is about it
(deadlines, the state that /status shows).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lifecycle_books import LATE, TINY, Books

if TYPE_CHECKING:
    from lifecycle_world import World

STEPS_AT_ONE_TIME = 150
"""More than any storm with all its answers takes."""


class Violation(AssertionError):
    """An invariant does not hold; the first word names it."""


def claim(holds: bool, invariant: str, **details: object) -> None:
    if not holds:
        raise Violation(f"{invariant}: {details}")


class Invariants(Books):
    """Checks each step on the books. `before` and `after` a step; the rest as its actions are executed."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.last_serial = -1
        self.same_time = (world.now, 0)

    # -- before and after a step ---------------------------------------------------------------------------

    def before(self, event: Any) -> None:
        core, world = self.core, self.world
        self.was = world.fleet
        match event:
            case core.Stop() | core.StopNow():
                self.stops(0, self.in_force.drain_delay)
                if isinstance(event, core.StopNow):
                    self.stop_now = True
                    self.stop_by = min(self.stop_by, world.now)
            case core.Roll() if not self.stopping:
                self.roll_wanted = True
                self.next_policy = event.policy or self.next_policy
                self.rolled_at_once = self.gone_first
            case core.Surge(width) if self.asked:
                self.width, self.measured, self.asked = width, True, False
            case core.Ready(serial) | core.RecycleDue(serial) if serial in world.processes:
                self.measured = self.measured and not world.processes[serial].live
            case core.Resize() if not self.stopping:
                self.resized(world.size + event.delta)
            case core.SetSize() if not self.stopping:
                self.resized(event.size)
        when, count = self.same_time
        self.same_time = (world.now, count + 1 if when == world.now else 0)
        claim(self.same_time[1] < STEPS_AT_ONE_TIME, "never-spins", steps=self.same_time)

    def after(self, actions: tuple[Any, ...]) -> None:
        world, fleet, now = self.world, self.world.fleet, self.world.now
        claim(set(fleet.workers) == set(world.processes), "books-agree", fleet=set(fleet.workers))
        claim(self.stopping or fleet.size == world.size, "size-as-asked", fleet=fleet.size, world=world.size)
        due = self.core.next_deadline(fleet)
        claim(due is None or due > now or bool(actions), "never-spins", due=due, now=now)
        self._check_boot_failures(fleet)
        self._check_deadlines(fleet)
        self._check_generations(fleet)
        self._check_recycles(fleet)
        self._check_roll(fleet)
        if self.stopping:
            late = [
                w
                for w in fleet.workers.values()
                if w.state == "draining" and w.deadline > self.stop_by + TINY
            ]
            claim(not late, "stop-caps-drains", late=late, stop_by=self.stop_by)
            by = self.stop_by + self.policy.reap + LATE + self.held_back
            claim(world.gone or now <= by + TINY, "gone-in-time", by=by, now=now)
            claim(world.gone == (not world.processes), "gone-when-empty", processes=len(world.processes))
            claim(fleet.state in ("stopping", "stopped"), "stops-when-asked", state=fleet.state)
        else:
            claim(fleet.state not in ("stopping", "stopped"), "stops-for-a-reason", state=fleet.state)
            claim(self.booted == (fleet.state != "booting"), "boots-once", state=fleet.state)
        self._check_liveness(due)
        self.rolled_at_once = False
        if not self.replacing:
            self.width, self.measured = int(self.policy.surge), False

    def _check_boot_failures(self, fleet: Any) -> None:
        """A boot failure in an unproven roll rolls it back; one of the old generation does not."""
        failed, self.boot_failures = {process.generation for process in self.boot_failures}, []
        wanted = self.was.generation
        if not failed or self.stopping or self.was.state != "rolling" or not self.policy.overlap:
            return
        if wanted in failed and wanted not in self.proven:
            claim(fleet.generation != wanted, "rolls-back", failed=wanted)
        else:
            claim(fleet.generation >= wanted, "rolls-on", failed=failed)

    def _check_deadlines(self, fleet: Any) -> None:
        """Every state is finite, on the core's books and on the world's."""
        now, policy = self.world.now, self.policy
        for worker in fleet.workers.values():
            own = self.world.processes[worker.serial].policy
            claim(worker.policy == own, "own-rules", worker=worker, rules=own)
            unwatched = worker.state == "ready" and not own.heartbeat_timeout
            finite = worker.deadline is not None and worker.deadline < math.inf
            claim(finite or unwatched, "finite-deadline", worker=worker)
        for process in self.world.processes.values():
            if process.killed_at is not None:
                limit = process.killed_at + policy.reap
            elif process.drained_at is not None:
                limit = min(process.drained_at + process.policy.grace, self.stop_by)
                if self.stop_at is not None and process.drained_at >= self.stop_at:
                    limit = max(self.stop_by, process.drained_at)  # at once for a start, late after a freeze
            elif process.ready_at is None:
                limit = process.born + process.policy.boot_timeout
            else:
                limit = process.alive_at + (process.policy.heartbeat_timeout or math.inf)
            claim(now <= limit + LATE + TINY, "deadline-kept", process=process, limit=limit, now=now)

    def _check_generations(self, fleet: Any) -> None:
        processes = self.world.processes.values()
        draining = {p.generation for p in processes if p.drained_at is not None and p.killed_at is None}
        draining.discard(fleet.generation)
        few = len(draining) <= self.policy.max_draining_generations
        claim(few or self.stopping, "few-draining-generations", draining=draining, wanted=fleet.generation)

    def _check_recycles(self, fleet: Any) -> None:
        """Beside a roll, one slot at most has two workers: the one being recycled."""
        if fleet.state == "serving":
            slots = [p.slot for p in self.world.processes.values() if p.live]
            claim(len(slots) - len(set(slots)) <= 1, "one-recycle", slots=slots)

    def _check_roll(self, fleet: Any) -> None:
        """A roll ends when nothing older serves, and whatever is missing backs off."""
        if fleet.state != "rolling" or fleet.generation not in self.proven:
            return
        live = [p for p in self.world.processes.values() if p.live]
        renewed = {p.slot for p in live if p.ready_at is not None and p.generation == fleet.generation}
        others = {p.slot for p in live} - renewed
        waiting = set(range(self.world.size)) - renewed - others - set(self.retry)
        claim(bool(others or waiting), "rolls-end", renewed=renewed, retry=self.retry)

    def _check_liveness(self, due: float | None) -> None:
        """Healed once the faults have ceased, in a time that the policy's limits give."""
        world, policy = self.world, self.policy
        boot, grace, delay, heartbeat = (
            max(getattr(each, name) or 0 for each in world.policies)
            for name in ("boot_timeout", "grace", "drain_delay", "heartbeat_timeout")
        )
        round_trip = boot + grace + policy.reap * 6 + policy.backoff_max + 4 * LATE
        rounds = 8 * (world.size + 4)
        patience = world.quiet_at + rounds * round_trip + delay + heartbeat
        claim(world.gone or world.now < patience, "converges", due=due, fleet=world.fleet)

    def converged(self) -> bool:
        """Exactly `size` ready workers of the wanted generation, one in each slot, no roll due or queued."""
        fleet, processes = self.world.fleet, self.world.processes.values()
        if fleet.state != "serving" or self.roll_wanted or self.world.now < self.world.quiet_at:
            return False
        if len(processes) != self.world.size:
            return False
        here = {p.slot for p in processes if p.serving and p.generation == fleet.generation and not p.due}
        return here == set(range(self.world.size))

    # -- what the core asks for ----------------------------------------------------------------------------

    def spawned(self, spawn: Any) -> None:
        world, slot = self.world, spawn.slot
        claim(not self.stopping, "no-spawn-after-stop", spawn=spawn)
        claim(spawn.serial > self.last_serial, "serials-are-never-reused", spawn=spawn)
        self.last_serial = spawn.serial
        bound = world.size + self.surge
        claim(len(world.processes) + 1 <= bound, "few-processes", processes=len(world.processes), bound=bound)
        claim(0 <= slot < world.size, "slot-within-size", spawn=spawn)
        claim(spawn.generation == world.fleet.generation, "wanted-generation", spawn=spawn)
        self.stable(slot)
        count, not_before = self.retry.get(slot, (0, -math.inf))
        claim(world.now >= not_before - TINY, "backs-off", spawn=spawn, failures=count, until=not_before)
        beside = [p for p in world.processes.values() if p.slot == slot and p.live]
        if self.gone_first:
            other = [p for p in world.processes.values() if p.generation != spawn.generation]
            claim(not other, "old-gone-first", spawn=spawn, other=other)
        for process in beside:
            older = process.generation < spawn.generation
            claim(process.serving or older, "one-start-in-a-slot", spawn=spawn, beside=process)
            claim(self.measured, "measured-first", spawn=spawn, beside=process)
            claim(not self.retires, "retired-first", spawn=spawn, beside=process)
            tried = [p for p in world.processes.values() if p.live and p.generation == spawn.generation]
            first = world.fleet.state == "serving" or spawn.generation in self.proven or not tried
            claim(first, "one-proves-it", spawn=spawn, tried=tried)
            recycled = process.due and world.fleet.state == "serving"
            rolled = older and world.fleet.state == "rolling"
            claim(recycled or rolled, "surge-only-to-replace", spawn=spawn, beside=process)

    def drained(self, drain: Any) -> None:
        world = self.world
        process = world.processes.get(drain.serial)
        claim(process is not None and process.live, "drains-once", drain=drain)
        assert process is not None
        if self.stopping:
            claim(drain.deadline <= self.stop_by + TINY, "stop-caps-drains", drain=drain, stop=self.stop_by)
            ready = process.ready_at is not None
            delayed = self.stop_at is not None and world.now >= self.stop_by - self.stop_grace - TINY
            claim(delayed or not ready, "serves-for-the-drain-delay", drain=drain)
            return
        claim(drain.deadline <= world.now + process.policy.grace + TINY, "finite-deadline", drain=drain)
        if process.slot >= world.size:
            return
        others = [p for p in world.processes.values() if p.slot == process.slot and p is not process]
        newer = any(p.serving and p.serial > process.serial for p in others)
        if process.ready_at is not None:
            old = self.gone_first and process.generation != world.fleet.generation
            retired = self.retires and self.may_retire(process)
            claim(newer or old or retired, "ready-before-drained", drain=drain, process=process)
            if not (newer or old):
                self.forget(process.slot)
        else:
            stale_start = newer or process.generation != world.fleet.generation
            claim(stale_start, "drains-for-a-reason", drain=drain, process=process)

    def rolled_all(self, generation: int) -> None:
        """Every slot has a worker of the new generation that is ready, or waits for its next try."""
        live = [p for p in self.world.processes.values() if p.live]
        newest = {p.slot for p in live if p.ready_at is not None and p.generation == generation}
        missing = set(range(self.world.size)) - newest - (set(self.retry) - {p.slot for p in live})
        claim(not missing, "rolled-all", missing=missing, retry=self.retry)

    def measuring(self) -> None:
        claim(not self.stopping and not self.asked, "asks-once", state=self.world.fleet.state)
        self.asked = True

    def may_retire(self, process: Any) -> bool:
        """Whether it would be the only worker that is missing, and is to be replaced at all."""
        world = self.world
        serving = {p.slot for p in world.processes.values() if p.serving}
        alone = serving >= set(range(world.size)) and len(world.processes) <= world.size
        rolled = world.fleet.state == "rolling" and process.generation < world.fleet.generation
        return alone and (rolled or (process.due and world.fleet.state == "serving"))

    def killed(self, kill: Any) -> None:
        """Only who deserves it is killed: late in its boot, silent, drained too long, or killed in vain."""
        now, process = self.world.now, self.world.processes.get(kill.serial)
        claim(process is not None, "kills-what-exists", kill=kill)
        assert process is not None
        policy = process.policy
        since, limit = process.born, policy.boot_timeout
        if process.killed_at is not None:
            since, limit = process.killed_at, policy.reap
        elif process.drained_at is not None:
            since, limit = process.drained_at, policy.grace
        elif process.ready_at is not None:
            since, limit = process.alive_at, policy.heartbeat_timeout or math.inf
        self._check_cause_of_kill(process, kill.cause.name)
        capped = now >= self.stop_by - TINY and process.killed_at is None
        claim(now >= since + limit - TINY or self.stop_now or capped, "no-innocent-kill", process=process)
        if process.killed_at is None and process.drained_at is None and not self.stop_now:
            self.failure(process, self.was, boot=process.ready_at is None, code=3)
        if process.kills > 1 and process.killed_at is None:
            self.held_back += (process.kills + 1) * (policy.reap + LATE)

    def _check_cause_of_kill(self, process: Any, cause: str) -> None:
        """What it was killed for first: again and again."""
        if process.killed_at is None:
            if self.stop_now:
                process.ordered = "STOP_NOW"
            elif process.drained_at is not None:
                process.ordered = "GRACE_DEADLINE"
            else:
                process.ordered = "BOOT_DEADLINE" if process.ready_at is None else "HEARTBEAT_DEADLINE"
        claim(cause == process.ordered, "killed-for-its-cause", cause=cause, process=process)

    def _check_cause_of_drain(self, process: Any, cause: str) -> None:
        if self.stopping:
            process.ordered = "STOPPING"
        elif process.slot >= self.world.size:
            process.ordered = "BEYOND_SIZE"
        else:
            process.ordered = "RECYCLED" if process.due else "SUPERSEDED"
        claim(cause == process.ordered, "drained-for-its-cause", cause=cause, process=process)

    def _check_cause_of_exit(self, ordered: str | None) -> None:
        process = self.leaver
        known = process is not None and ordered == process.ordered
        claim(known, "gone-for-its-cause", ordered=ordered, process=process)

    def exited(self, code: int) -> None:
        world = self.world
        claim(not world.gone, "exits-once", code=code)
        claim(not world.processes, "no-child-outlives-it", processes=world.processes)
        claim(code == self.expected_code, "exit-code", code=code, expected=self.expected_code)

    def announced(self, kind: str, data: Any) -> None:
        if kind == "serving":
            self.booted = True
        elif kind == "rolling":
            claim(self.roll_wanted, "rolls-when-asked", data=data)
            self.rolling()
            self.width, self.measured = int(self.policy.surge), False
        elif kind == "roll failed" and data["rolled_back"]:
            self.policy, self.previous_policy = self.previous_policy, None
        elif kind == "draining":
            self._check_cause_of_drain(self.world.processes[data["serial"]], data["why"].cause.name)
        elif kind == "exited":
            self._check_cause_of_exit(data["ordered"].name if data["ordered"] else None)
        elif kind == "rolled":
            self.previous_policy = None
            if not self.stopping:
                self.rolled_all(data["generation"])
        elif kind == "backoff":
            claim(not self.stopping, "no-backoff-after-stop", data=data)
            slot, seconds = data["slot"], data["seconds"]
            count, until = self.retry.get(slot, (0, -math.inf))
            agreed = count <= data["failures"] and self.world.now + seconds >= until - TINY
            claim(agreed, "backs-off", count=count, until=until, data=data)
            claim(seconds < math.inf or until == math.inf, "retries", until=until, data=data)
