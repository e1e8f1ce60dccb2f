"""Small deliberate breakages of the core, and how to load a core that has one."""
# ruff: noqa: E501 - a table

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import mooring.supervisor.lifecycle

PACKAGE = "mooring.supervisor.lifecycle"
FILES = ("table", "cause", "model", "messages", "turn", "changes", "reconcile", "core", "__init__")
SOURCE = Path(mooring.supervisor.lifecycle.__file__).parent


class Mutant(NamedTuple):
    """One replacement in one file of the core; `old` must be there exactly once."""

    name: str
    file: str
    old: str
    new: str


# fmt: off
MUTANTS = (
    # spawning
    Mutant("draining workers don't count as processes", "reconcile", "- len(turn.workers)", "- len(turn.in_state(*LIVE))"),
    Mutant("one process too many", "reconcile", "surge - len(", "surge + 1 - len("),
    Mutant("room means less than none", "reconcile", "_room(turn) > 0:", "_room(turn) >= 0:"),
    Mutant("serials are reused", "turn", "next_serial=serial + 1", "next_serial=len(self.workers)"),
    Mutant("spawns while stopping", "reconcile", "_wind_down(turn)\n    elif", "_wind_down(turn)\n        _spawn_missing(turn)\n    elif"),
    Mutant("spawns the old generation", "turn", "Spawn(serial, slot, fleet.generation)", "Spawn(serial, slot, 1)"),
    Mutant("doesn't wait for the old to be gone", "reconcile", "if _gone_first(fleet) and older:", "if False:"),
    # failing
    Mutant("no backoff", "reconcile", "return failures is None or failures.retry_at is None", "return True"),
    Mutant("backoff doesn't grow", "changes", "before.count + 1 if before else 1", "1"),
    Mutant("whatever was ready has paid off", "changes", "return turn.now - ready_at >= turn.fleet.policy.longest_wait(before.count)", "return True"),
    Mutant("an expired backoff stays", "core", "turn.forget_backoff(slot)", "pass"),
    Mutant("an expired backoff is never noticed", "core", "failures.retry_at <= now:", "failures.retry_at < -1:"),
    Mutant("the next deadline leaves out the backoff", "core", "f.retry_at is not None and f.retry_at < math.inf", "False"),
    Mutant("failures are forgotten at once", "core", "if _stable_at(turn.fleet, worker) <= now:", "if True:"),
    Mutant("failures are forgotten beside an older worker", "core", "(worker.ready_at or 0.0) >= failures.last_at", "True"),
    Mutant("a failed spawn is no failure", "changes", "    else:\n        _back_off(turn, worker, why)\n", "    else:\n        pass\n"),
    Mutant("a failed spawn is retried for ever while booting", "changes", "if fatal and trying", "if False and trying"),
    Mutant("dev retries a boot failure", "changes", "math.inf if waits", "0.1 if waits"),
    Mutant("a boot failure backs off while booting", "changes", "if boot and fleet.state is FleetState.BOOTING and", "if False and"),
    Mutant("a crash stops the fleet while booting", "changes", "if boot and fleet.state is FleetState.BOOTING and", "if fleet.state is FleetState.BOOTING and"),
    Mutant("the worker's exit code is lost", "core", "(exit_code if fatal else None) or", "None or"),
    # deadlines
    Mutant("no boot deadline", "turn", "state, now, deadline, spawned_at", "state, now, None, spawned_at"),
    Mutant("a beat renews nothing", "turn", "replace(worker, deadline=self._heartbeat_deadline(worker))", "worker"),
    Mutant("of several beats only the first counts", "core", "for serial in serials if serial", "for serial in serials[:1] if serial"),
    Mutant("no heartbeat watch", "turn", "return self.now + timeout if timeout else None", "return None"),
    Mutant("killed once only", "turn", "self.now + self.fleet.policy.reap, ordered", "None, ordered"),
    Mutant("deadlines expire only for the living", "core", "if worker.deadline is not None and worker.deadline <= now:", "if worker.state in LIVE and worker.deadline is not None and worker.deadline <= now:"),
    Mutant("a deadline on the dot is not past", "core", "worker.deadline <= now:", "worker.deadline < now:"),
    Mutant("the next deadline leaves out the workers", "core", "times = [worker.deadline for worker in fleet.workers.values() if worker.deadline is not None]", "times: list[float] = []"),
    Mutant("a pause is imagined", "core", "turn.now - due > PAUSE", "turn.now - due > 0.2"),
    Mutant("grace twice as long", "turn", "self.now + worker.policy.grace if", "self.now + 2 * worker.policy.grace if"),
    # causes
    Mutant("a hang is told as a boot that was too slow", "core", "WorkerState.READY: Cause.HEARTBEAT_DEADLINE", "WorkerState.READY: Cause.BOOT_DEADLINE"),
    Mutant("who is killed again is so for another cause", "core", "worker.ordered if worker.state is WorkerState.KILLED else MISSED[worker.state]", "MISSED.get(worker.state, Cause.GRACE_DEADLINE)"),
    Mutant("a recycle is told as a roll", "reconcile", "Cause.RECYCLED if worker.stale else", "Cause.RECYCLED if False else"),
    Mutant("the stop is told as a smaller size", "reconcile", "Trigger.STOPPING, Cause.STOPPING", "Trigger.STOPPING, Cause.BEYOND_SIZE"),
    Mutant("the cause of the drain outlives the kill", "turn", "ordered=ordered or worker.ordered", "ordered=worker.ordered or ordered"),
    Mutant("stop now is told as a missed deadline", "changes", "Trigger.STOP_NOW, Cause.STOP_NOW", "Trigger.STOP_NOW, Cause.GRACE_DEADLINE"),
    # rolling and recycling
    Mutant("the old drains while the new starts", "reconcile", "(w.serial for w in workers if w.state is WorkerState.READY)", "(w.serial for w in workers)"),
    Mutant("old generations drain at once", "reconcile", "worker.state is WorkerState.STARTING and (rolled_back or slot_serves)", "True"),
    Mutant("a recycle goes on during a roll", "reconcile", "worker.state is WorkerState.STARTING and (rolled_back or slot_serves)", "worker.state is WorkerState.STARTING and rolled_back and slot_serves and False"),
    Mutant("the stale worker is drained first", "turn", "replace(worker, due=why, stale=True)", "replace(worker, stale=True, state=WorkerState.DRAINING, deadline=self.now + 1)"),
    Mutant("recycles overlap", "reconcile", "worker.serial)[:1]", "worker.serial)[:9]"),
    Mutant("a recycle doesn't wait for the one before", "reconcile", "SERVING and not _recycling(turn)", "SERVING"),
    Mutant("recycles don't wait while rolling", "reconcile", "if fleet.state is FleetState.SERVING and not _rec", "if not _rec"),
    Mutant("recycle due is not heard", "turn", "stale=True)", "stale=False)"),
    Mutant("a failed roll is not rolled back", "changes", "if boot and not older and rolling and not fleet.proven:", "if False:"),
    Mutant("a proven roll is rolled back", "changes", "if boot and not older and rolling and not fleet.proven:", "if boot and not older and rolling:"),
    Mutant("a roll is proven before it was ready", "changes", "        proven=False,", "        proven=True,"),
    Mutant("a queued roll is dropped", "changes", "turn.fleet = replace(fleet, queued=True)", "turn.fleet = replace(fleet, queued=fleet.state is not FleetState.ROLLING)"),
    Mutant("a queued roll is repeated", "changes", "        proven=False,\n        queued=False,\n", "        proven=False,\n"),
    Mutant("a roll interrupts a roll", "reconcile", "if may_roll(turn):", "if turn.fleet.queued:"),
    Mutant("any number of generations drain", "changes", "len(draining) < fleet.policy.max_draining_generations", "True"),
    Mutant("one generation too many drains", "changes", "len(draining) < fleet", "len(draining) <= fleet"),
    Mutant("rolled before all are", "reconcile", "if fleet.proven and arrived:", "if fleet.proven:"),
    Mutant("a roll waits for a slot that backs off", "reconcile", "(not workers and slot in turn.failures)", "False"),
    Mutant("the old generation's boot failure waits for another roll", "changes", "waits = boot and not older and", "waits = boot and"),
    Mutant("the old generation's boot failure fails the roll", "changes", "if boot and not older and rolling", "if boot and rolling"),
    Mutant("a roll is proven by the old generation", "turn", "if worker.generation == self.fleet.generation:", "if True:"),
    # measuring, and retiring where there is no room
    Mutant("nothing is measured", "reconcile", "if not turn.fleet.measured:", "if False:"),
    Mutant("asks again and again", "reconcile", "if not turn.fleet.measuring:", "if True:"),
    Mutant("a measurement holds for ever", "turn", "self.fleet = replace(self.fleet, measured=False)", "pass"),
    Mutant("a measurement outlives a resize", "changes", "size=size, measured=False)", "size=size)"),
    Mutant("the measured surge outlives the roll", "reconcile", "if at_rest and turn", "if False and turn"),
    Mutant("an answer that nobody asked for counts", "changes", "if turn.running and turn.fleet.measuring:", "if turn.running:"),
    Mutant("nothing replaces the only worker", "reconcile", "max(1, fleet.surge) if fleet.size == 1 else fleet.surge", "fleet.surge"),
    Mutant("the only worker is retired", "reconcile", "turn.fleet.surge == 0 and turn.fleet.size > 1", "turn.fleet.surge == 0"),
    Mutant("nothing is retired", "reconcile", "retires = turn.fleet.surge == 0 and", "retires = False and"),
    Mutant("one is retired while another is missing", "reconcile", "return ready and worker.state", "return worker.state"),
    Mutant("one is retired while another drains", "reconcile", " and len(turn.workers) <= turn.fleet.size", ""),
    Mutant("what was retired ends the roll", "reconcile", "turn.failures.pop(worker.slot, None)  # else", "pass  # else"),
    Mutant("replaces beside it without room", "reconcile", "else _room(turn) > 0)", "else True)"),
    Mutant("all prove the generation", "reconcile", "        if fleet.proven:\n            return found", "        if True:\n            return found"),
    # what a roll takes up
    Mutant("a roll takes up nothing", "changes", "policy=fleet.next_policy or fleet.policy", "policy=fleet.policy"),
    Mutant("the first of several rolls' settings counts", "changes", "policy or fleet.next_policy", "fleet.next_policy or policy"),
    Mutant("a roll without settings forgets those of the one before", "changes", "policy or fleet.next_policy", "policy"),
    Mutant("settings are taken up twice", "changes", "        next_policy=None,\n        proven", "        proven"),
    Mutant("a failed roll's settings stay", "changes", "policy=fleet.previous_policy or fleet.policy", "policy=fleet.policy"),
    Mutant("the old generation drains by the new grace", "turn", "self.now + worker.policy.grace", "self.now + self.fleet.policy.grace"),
    Mutant("the old generation beats by the new timeout", "turn", "worker.policy.heartbeat_timeout", "self.fleet.policy.heartbeat_timeout"),
    Mutant("a stop goes by an unproven roll's settings", "changes", "turn.fleet.in_force", "turn.fleet.policy"),
    Mutant("a stop goes by the old settings to the roll's end", "model", "self.policy if self.proven or self.previous_policy is None", "self.policy if self.previous_policy is None"),
    Mutant("a longer grace outlasts the stop", "changes", "    turn.cap(deadline)\n", ""),
    # sizing
    Mutant("size 0", "changes", "turn.fleet.size, max(1, size)", "turn.fleet.size, max(0, size)"),
    Mutant("beyond the size stays", "reconcile", "if slot >= turn.fleet.size:", "if False:"),
    # stopping
    Mutant("a second stop moves the deadline", "changes", "    if not turn.running:\n        return\n    delay", "    delay"),
    Mutant("the stop's deadline leaves out the drain delay", "changes", "turn.now + delay + policy.grace", "turn.now + policy.grace"),
    Mutant("the stop's deadline is each drain's own", "turn", "if stop is None else stop", "if True else stop"),
    Mutant("the stop waits for the roll", "reconcile", "if due or worker.state is WorkerState.STARTING:", "if due and worker.state is WorkerState.READY:"),
    Mutant("no drain delay", "reconcile", "due = fleet.drain_at is None or turn.now >= fleet.drain_at", "due = True"),
    Mutant("the drain delay never ends", "core", "    if fleet.drain_at is not None:\n        times.append(fleet.drain_at)\n", ""),
    Mutant("stop now only drains", "core", "            stop_now(turn)\n", ""),
    Mutant("exits before the children", "reconcile", "if not turn.workers and fleet.outcome", "if not turn.in_state(*LIVE) and fleet.outcome"),
    Mutant("exits never", "reconcile", "turn.actions.append(Exit(", "(Exit("),
    Mutant("a crash after the stop is a failure", "changes", "    fleet = turn.fleet\n    if not turn.running:\n        return\n    boot = worker", "    fleet = turn.fleet\n    boot = worker"),
    Mutant("what is stopped can be asked to roll", "changes", "    fleet = turn.fleet\n    if not turn.running:\n        return\n    booting", "    fleet = turn.fleet\n    booting"),
    Mutant("what is stopped can stop again", "turn", "not in (FleetState.STOPPING, FleetState.STOPPED)", "is not FleetState.STOPPING"),
    Mutant("a freeze is not forgiven", "core", "turn.now - due > PAUSE", "False"),
)
# fmt: on


def load(mutant: Mutant) -> ModuleType:
    """Return the core, broken by this mutant, as a package of its own name."""
    name = f"mutant_of_{PACKAGE.rpartition('.')[2]}"
    for loaded in [loaded for loaded in sys.modules if loaded == name or loaded.startswith(f"{name}.")]:
        del sys.modules[loaded]
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = []
    for file in FILES:
        path = SOURCE / f"{file}.py"
        source = path.read_text()
        if file == mutant.file:
            assert source.count(mutant.old) == 1, f"{mutant.name}: not once in {path}: {mutant.old!r}"
            source = source.replace(mutant.old, mutant.new)
        module = package
        if file != "__init__":
            module = sys.modules[f"{name}.{file}"] = ModuleType(f"{name}.{file}")
        exec(compile(source.replace(PACKAGE, name), str(path), "exec"), module.__dict__)
    return package
