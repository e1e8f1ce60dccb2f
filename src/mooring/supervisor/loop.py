"""The supervisor's loop: waits in one place, turns news into events, executes actions. Decides nothing."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mooring.logs.log import Log
from mooring.plan.fit import fit, resized
from mooring.plan.plan import Plan, Report
from mooring.supervisor import lifecycle, notices
from mooring.supervisor.history import History, ended_by
from mooring.supervisor.leftovers import Leftovers
from mooring.supervisor.lifecycle import Cause, Reason, WorkerState
from mooring.supervisor.part import Part
from mooring.supervisor.workers import WorkerHandle, Workers
from mooring.system import process
from mooring.system.signals import SignalQueue
from mooring.worker import messages

if TYPE_CHECKING:
    from mooring.supervisor.companions import Companion

_LONGEST_WAIT = 86_400.0  # seconds; epoll_wait(2) takes milliseconds as an int: 24 days at most


class Supervisor:
    """Runs one fleet until it has stopped, with the parts beside the workers.

    A callback that exactly one part provides is an attribute: `on_...`.
    """

    def __init__(self, workers: Workers, log: Log, policy: lifecycle.Policy, queue: SignalQueue) -> None:
        self.workers = workers
        self.log = log
        self.queue = queue
        self.selector = workers.selector
        self.fleet = lifecycle.new_fleet(policy)
        self.history = History()
        self.exit_code: int | None = None
        self.urls: list[str] = []
        self.admin_urls: list[str] = []
        self.probe_urls: list[str] = []
        self.hurried = False  # told to stop now
        self.companions: list[Companion] = []
        self.on_roll: Callable[[], None] = lambda: self.post(lifecycle.Roll())
        self.on_kill: Callable[[int, Cause], bool] = lambda _serial, _cause: False  # whether it kills
        self.on_measure: Callable[[], int] = lambda: 1  # how many workers above the size there may be
        self.on_dying: Callable[[int], None] = lambda _pid: None  # of any child, before it is reaped
        self.on_told_gone: Callable[[], None] = lambda: None  # a worker of an engine's arbiter has ended
        self.on_reopen: Callable[[], None] = lambda: None
        self.on_fit: Callable[[Plan], None] = lambda _plan: None
        self.pending_plans: dict[int, Plan] = {}  # by the policy's edition: of a generation not proven yet
        self._leftovers = Leftovers(lambda: self.hurried)
        self._parts: list[Part] = [self._leftovers]
        self._events: deque[lifecycle.Event] = deque()
        self._interrupted = False
        self._left = False
        self._on_terminal = os.isatty(2)

    def add(self, part: Part) -> None:
        """Add a part. Parts are woken and told in the order in which they were added."""
        self._parts.append(part)

    @property
    def plan(self) -> Plan:
        """The newest revision of the plan that serves."""
        return self.workers.plan

    def plan_of(self, policy: lifecycle.Policy) -> Plan:
        """The plan that goes with a generation's policy."""
        return self.pending_plans.get(policy.edition, self.plan)

    def run(self) -> int:
        """Supervise until the fleet has stopped, and no part is busy. Returns the exit code."""
        self.selector.register(self.queue.fileno(), selectors.EVENT_READ, self._read_signals)
        self.post(lifecycle.Tick())
        while True:
            self._advance()
            if self.exit_code is not None and not any(part.busy() for part in self._parts):
                return self.exit_code
            self._wait()

    def post(self, event: lifecycle.Event) -> None:
        """Queue an event: it is stepped before the next wait."""
        self._events.append(event)

    def post_first(self, event: lifecycle.Event) -> None:
        """Queue an event ahead of all others: each step also expires deadlines, which it may renew."""
        self._events.appendleft(event)

    def roll(self) -> None:
        """Replace the generation by the next, with the settings as they are now."""
        self.on_roll()

    def _advance(self) -> None:
        while self._events:
            self.fleet, actions = lifecycle.step(self.fleet, self._events.popleft(), time.monotonic())
            if not self._left and self.fleet.takes_nothing_new:
                self._left = True
                self.workers.leave_for_good()  # before a worker is told to drain
            for action in actions:
                self._execute(action)

    def _wait(self) -> None:
        times = [lifecycle.next_deadline(self.fleet), *(part.next_deadline() for part in self._parts)]
        deadline = min((moment for moment in times if moment is not None), default=None)
        timeout = None if deadline is None else min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT)
        for key, _ in self.selector.select(timeout):
            if isinstance(key.data, WorkerHandle):
                self._hear(key.data)
            else:
                key.data()
        for part in self._parts:
            part.expire()
        if not self._events:
            self.post(lifecycle.Tick())

    # -- actions -------------------------------------------------------------------------------------------

    def _execute(self, action: lifecycle.Action) -> None:
        match action:
            case lifecycle.Spawn(serial, slot, generation):
                try:
                    self.workers.spawn(serial, slot, generation, self.plan_of(self.fleet.policy))
                except OSError as error:
                    self.post(lifecycle.SpawnFailed(serial, process.errno_of(error)))
            case lifecycle.Drain(serial):
                self._end(serial, kill=False)
            case lifecycle.Kill(serial, cause):
                if not self.on_kill(serial, cause):
                    self._end(serial, kill=True)
            case lifecycle.Measure():
                self.post_first(lifecycle.Surge(self.on_measure()))
            case lifecycle.Announce(kind, data):
                self.history.note(kind, dict(data))
                for part in self._parts:
                    part.told(kind, data)
                notices.tell(self.log, kind, data, live_reload=self.plan.settings.reload)
            case lifecycle.Exit(code):
                self.exit_code = code

    def _end(self, serial: int, *, kill: bool) -> None:
        handle = self.workers.handles.get(serial)
        if handle is None:
            return
        if not handle.pid:
            self.workers.spawner.give_up(serial, killed=kill)
        elif kill:
            process.kill_group(handle.pid)
        else:
            self.workers.drain(handle)

    # -- events --------------------------------------------------------------------------------------------

    def _read_signals(self) -> None:
        for number in self.queue.read():
            self._on_signal(number)
        self._reap()  # at every signal: a full queue may have lost a CHLD

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGQUIT or (number == signal.SIGINT and self._interrupted):
            self.hurried = True
            self.post(lifecycle.StopNow())
        elif number in {signal.SIGTERM, signal.SIGINT}:
            self._interrupted = self._interrupted or number == signal.SIGINT
            self.post(lifecycle.Stop())
        elif number == signal.SIGHUP and self._on_terminal and not os.isatty(2):
            self.post(lifecycle.Stop())  # the terminal was closed: this HUP asks for no roll
        elif number == signal.SIGHUP:
            self.roll()
        elif number in {signal.SIGTTIN, signal.SIGTTOU}:
            self.resize(1 if number == signal.SIGTTIN else -1)
        elif number == signal.SIGUSR1:
            self.reopen_logs()

    def reopen_logs(self) -> None:
        """Reopen the log files: here first, so that a worker that starts now inherits the new ones."""
        self.on_reopen()
        for pid in self.workers.serials:
            process.send(pid, signal.SIGUSR1)
        self.workers.spawner.reopen_logs()

    def resize(self, delta: int) -> None:
        """Want `delta` workers more. While worker 0 boots alone, or with an arbiter, change the plan."""
        if not self.plan.has_arbiter and self.plan.revision > 1:
            self.post(lifecycle.Resize(delta))
            return
        self.workers.plan = resized(self.plan, delta)
        self.pending_plans = {edition: resized(plan, delta) for edition, plan in self.pending_plans.items()}
        for handle in self.workers.handles.values():
            self.resize_arbiter(handle)

    def resize_arbiter(self, handle: WorkerHandle) -> None:
        """Signal an engine's arbiter to come one worker closer to its plan, unless its answer is awaited.

        One signal at a time: several that are pending arrive as one, signal(7).
        """
        worker = self.fleet.workers.get(handle.serial)
        if worker is None or worker.state not in {WorkerState.STARTING, WorkerState.READY}:
            return
        wanted = self.plan_of(worker.policy).workers
        if handle.size is not None and handle.size != wanted and not handle.resizing:
            handle.resizing = True
            more = handle.size < wanted
            process.send(handle.pid, signal.SIGTTIN if more else signal.SIGTTOU)

    def _leads(self, pid: int) -> bool:
        """Whether a child that has ended leads a process group, which is to end with the child."""
        leads = pid in self.workers or any(each.pid == pid for each in self.companions)
        if leads:
            self._leftovers.ended(pid)
        return leads

    def _reap(self) -> None:
        for ended in process.reap(self._leads, self.on_dying):
            handle = self.workers.forget(ended.pid)
            if handle is None:
                for part in self._parts:
                    part.exited(ended)
                continue
            self.lost(handle, ended)

    def lost(self, handle: WorkerHandle, ended: process.Reaped) -> None:
        """A forgotten handle's process has ended: read its last messages, and tell the lifecycle."""
        self._hear(handle)
        self.workers.release(handle)
        self.post(self._exited(handle, ended))

    def _exited(self, handle: WorkerHandle, ended: process.Reaped) -> lifecycle.Exited:
        failure = handle.failure
        if failure is not None:
            said = Reason(Cause.FAILED, failure.message)
            return lifecycle.Exited(handle.serial, said, failure.code, fatal=True)
        worker = self.fleet.workers.get(handle.serial)
        if worker is None or worker.state is WorkerState.KILLED:
            return lifecycle.Exited(handle.serial, ended_by(ended.code))
        reason = self.history.exits.explain(ended.code)
        early = worker.state is WorkerState.STARTING and handle.report is None
        if early and reason.cause is not Cause.OUT_OF_MEMORY:
            reason = Reason(Cause.ENDED_EARLY, str(reason))
        return lifecycle.Exited(handle.serial, reason)

    def _hear(self, handle: WorkerHandle) -> None:
        for message in self.workers.hear(handle):
            self._on_message(handle, message)

    def _on_message(self, handle: WorkerHandle, message: dict[str, Any]) -> None:
        handle.failure = messages.failure(message) or handle.failure
        report = messages.report(message)
        if report is not None:
            handle.report = report
            self.post(lifecycle.Ready(handle.serial))
            worker = self.fleet.workers.get(handle.serial)
            if worker is not None and worker.policy.edition in self.pending_plans:
                pass  # Reconfigure fits its plan, once the lifecycle has announced READY
            elif self.plan.revision == 1 or report.interface != self.plan.interface:
                self._fit(report, handle)
        self._leftovers.hear(handle.pid, message)
        gone = messages.gone(message)
        if gone is not None:
            self._leftovers.gone(handle.pid, gone)
            self.workers.scoreboard.sweep(handle.serial)
            self.on_told_gone()
        why = messages.leaving(message)
        if why is not None:
            self.post(lifecycle.RecycleDue(handle.serial, why))
        size = messages.size(message)
        if size is not None and handle.plan.has_arbiter:
            handle.size, handle.resizing = size, False
            self.resize_arbiter(handle)

    def _fit(self, report: Report, handle: WorkerHandle) -> None:
        """Worker 0 has reported: make the plan's second revision, and start the other workers.

        After a roll to an application of the other interface, make one more revision; the size stays.
        """
        first = self.plan.revision == 1
        self.workers.plan = fit(self.plan, report, self.workers.reserved(report, handle))
        if first and not self.plan.has_arbiter:
            self.post(lifecycle.SetSize(self.plan.workers))
        self.on_fit(self.plan)
