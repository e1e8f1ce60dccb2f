"""A roll takes up new settings: a process of its own resolves them, and the new generation is given them.

The supervisor itself reads no file, so that neither a hanging file system nor a bad file can block it. The
new settings are in force (/status, limits, size) once the first worker of the new generation is ready. Not
for what is resolved, nor for what needs a restart: plan/replan.py.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from mooring.errors import MooringError
from mooring.logs.log import show_traceback
from mooring.plan import replan
from mooring.plan.fit import fit
from mooring.plan.plan import Plan, Report
from mooring.plan.replan import Replanned
from mooring.settings.table import Settings
from mooring.supervisor import lifecycle
from mooring.supervisor.lifecycle import FleetState, Notice
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.part import Part
from mooring.system import process
from mooring.system.child import NEVER, Child
from mooring.system.memfd import memory
from mooring.system.signals import SignalQueue, Stopped

# Seconds; longer than a server's configuration file may take (plan/server_config/find.py).
LONGEST = 45.0
_PATIENCE = 0.5  # seconds from TERM to KILL; TERM also ends the process that runs a configuration file
# Seconds after the KILL for which a stop waits: a process in uninterruptible sleep ends with the supervisor.
_UNKILLABLE = 1.0


class Reconfigure(Part):
    """Resolves the settings at each `ask`, and gives each generation its plan."""

    def __init__(
        self,
        supervisor: Supervisor,
        serving: Replanned,
        remake: Callable[[Replanned, SignalQueue], Replanned],
        policy: Callable[[Settings], lifecycle.Policy],
    ) -> None:
        """`remake` resolves the settings, in the process (plan/replan.py); `policy` makes their policy."""
        self._supervisor, self._remake, self._policy = supervisor, remake, policy
        self._serving = serving
        self._made: dict[int, Replanned] = {}  # by edition: resolved, and not in force yet
        self._edition = 0
        self._resolver = Child(kill_again=_PATIENCE)  # its channel is a file in memory, for the result
        self._deadline, self._killed = NEVER, NEVER  # when it takes too long, when it was first killed
        self._again = False  # to be resolved once more after the present process

    def ask(self) -> None:
        """Roll with the settings as they are now; while a process resolves them, do so again after it."""
        if self._supervisor.fleet.outcome is not None:
            return
        self._again = bool(self._resolver.pid)
        if not self._again:
            self._begin()

    # -- the process ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        serving = self._serving
        self._deadline, self._killed = time.monotonic() + LONGEST, NEVER
        try:
            answer = memory("mooring-reconfigure")
            self._resolver.start(lambda: _work(self._remake, serving, answer), [answer], ours=answer)
        except OSError as error:
            self._refuse(f"the settings could not be resolved: {error.strerror}")

    def busy(self) -> bool:
        """Whether the process runs, and a stop waits for it."""
        return bool(self._resolver.pid) and time.monotonic() < self._killed + _UNKILLABLE

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds)."""
        resolver = self._resolver
        if not resolver.pid:
            return None
        soonest = resolver.next_deadline() if resolver.ending else self._deadline
        left = self._killed + _UNKILLABLE
        return min(soonest or NEVER, left) if time.monotonic() < left else soonest

    def expire(self) -> None:
        """End a process that takes too long: by TERM, then by KILL."""
        now = time.monotonic()
        if self._resolver.is_overdue():
            self._resolver.kill()
            self._killed = min(self._killed, now)
        elif self._resolver.pid and not self._resolver.ending and now >= self._deadline:
            self._resolver.terminate(_PATIENCE)

    def exited(self, ended: process.Reaped, /) -> None:
        """React to the end of a process that is not a worker: where it has resolved, take its result."""
        if not self._resolver.ended(ended.pid):
            return
        answer = self._resolver.channel
        data = os.pread(answer, os.fstat(answer).st_size, 0)
        self._resolver.deafen()
        late, again = self._resolver.ending, self._again
        if self._supervisor.fleet.outcome is not None:
            return
        if late:
            self._refuse(f"the settings were not resolved within {LONGEST:g} s")
        elif ended.code != 0 or not data:
            self._refuse(f"the settings could not be resolved: {process.describe(ended.code)}")
        else:
            self._answered(replan.decode(data))
        if again:
            self._again = False
            self._begin()

    # -- its answer ----------------------------------------------------------------------------------------

    def _answered(self, answer: Replanned | str) -> None:
        if isinstance(answer, str):
            self._refuse(answer)
            return
        log, known = self._supervisor.log, self._serving.plan.warnings
        for warning in answer.plan.warnings:
            if warning not in known:
                log.warning(warning)
        if answer.kept:  # said again at each roll, and in /status
            text = f"changes need a restart: {', '.join(answer.kept)}"
            log.warning(text)
            warnings = (*answer.plan.warnings, text)
            answer = answer._replace(plan=dataclasses.replace(answer.plan, warnings=warnings))
        self._edition += 1
        self._made[self._edition] = answer
        rules = dataclasses.replace(self._policy(answer.plan.settings), edition=self._edition)
        self._supervisor.post(lifecycle.Roll(rules))

    def _refuse(self, why: str) -> None:
        supervisor = self._supervisor
        generation, booting = supervisor.fleet.generation, supervisor.fleet.state is FleetState.BOOTING
        goes_on = "goes on starting" if booting else "keeps serving"
        supervisor.log.error(f"roll refused ({why}); generation {generation} {goes_on}")
        supervisor.history.refused(generation, why)

    # -- its generation ------------------------------------------------------------------------------------

    def told(self, kind: Notice, data: Mapping[str, Any], /) -> None:
        """React to a notice of the lifecycle."""
        supervisor = self._supervisor
        fleet, waiting = supervisor.fleet, supervisor.pending_plans
        if kind is Notice.STOPPING and not self._resolver.ending:
            self._resolver.terminate(_PATIENCE)
        elif kind is Notice.ROLLING and fleet.policy.edition in self._made:
            waiting[fleet.policy.edition] = self._first(self._made[fleet.policy.edition].plan)
        elif kind is Notice.READY and data["serial"] in fleet.workers:
            edition = fleet.workers[data["serial"]].policy.edition
            if edition in waiting:
                self._take_up(edition, data["serial"])
        if kind in {Notice.ROLLING, Notice.ROLL_FAILED}:
            rest = {fleet.policy.edition, fleet.next_policy.edition if fleet.next_policy else -1}
            newest = max(rest)  # a newer edition has not reached the lifecycle yet
            self._made = {e: made for e, made in self._made.items() if e in rest or e > newest}
            for edition in waiting.keys() - rest:
                del waiting[edition]

    def _first(self, plan: Plan) -> Plan:
        """The plan for the generation's first workers.

        An engine's arbiter starts all its workers at once, except where their number is tuned again.
        """
        now = self._supervisor.plan
        if self._same_size(plan):
            return dataclasses.replace(plan, workers=self._count(), revision=now.revision)
        tuned = plan.explained["workers"].origin == "tuned"
        return plan if tuned else dataclasses.replace(plan, revision=now.revision)

    def _same_size(self, plan: Plan) -> bool:
        """Whether the values that decide the number of workers are as before.

        Then the number stays as TTIN, TTOU and the cap by memory have changed it.
        """
        return _size(plan) == _size(self._serving.plan)

    def _count(self) -> int:
        plan = self._supervisor.plan
        return plan.workers if plan.has_arbiter else self._supervisor.fleet.size

    def _take_up(self, edition: int, serial: int) -> None:
        """Put an edition's settings in force: once a worker is ready, the roll does not go back."""
        supervisor, made = self._supervisor, self._made.pop(edition)
        handle = supervisor.workers.handles.get(serial)
        before, plan = supervisor.plan, supervisor.pending_plans.pop(edition)
        if handle is None or handle.report is None:  # it has just ended: take the plan without a report
            after = dataclasses.replace(plan, revision=before.revision + 1)
        else:
            after = self._fitted(made.plan, handle.report, supervisor.workers.reserved(handle.report, handle))
        if after.has_arbiter:
            target = 1
        elif self._same_size(made.plan):
            target = self._count()
        else:
            target = after.workers
        self._serving = made
        supervisor.workers.plan = after
        supervisor.log.set_level(after.settings.log_level)
        if target != supervisor.fleet.size:
            supervisor.post(lifecycle.SetSize(target))
        if handle is not None:
            supervisor.resize_arbiter(handle)
        names = replan.changed(before, after)
        if names:
            supervisor.log.info(f"new settings: {', '.join(names)}")
            supervisor.on_fit(after)

    def _fitted(self, plan: Plan, report: Report, own: int) -> Plan:
        """The plan's second stage. The number of workers stays where `_same_size` is true."""
        before, after = self._supervisor.plan, fit(plan, report, own)
        if self._same_size(plan):
            explained = {**after.explained, "workers": before.explained["workers"]}
            alike = before.has_arbiter == after.has_arbiter
            workers = before.workers if alike else self._count()
            after = dataclasses.replace(after, workers=workers, explained=explained)
        return dataclasses.replace(after, revision=before.revision + 1)


def _size(plan: Plan) -> tuple[Any, ...]:
    """The values that decide the number of workers."""
    return plan.workers, plan.resources.memory_limit.value, plan.settings.memory_headroom


def _work(remake: Callable[[Replanned, SignalQueue], Replanned], serving: Replanned, answer: int) -> int:
    """In the process: resolve the settings, and write the result to the file `answer`."""
    try:
        found: Replanned | str = remake(serving, SignalQueue())
    except Stopped:
        return 1
    except MooringError as error:
        show_traceback(getattr(error, "traceback", ""))
        found = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        found = f"{error.filename}: {error.strerror}"
    with open(answer, "wb", closefd=False) as file:
        file.write(replan.encode(found))
    return 0
