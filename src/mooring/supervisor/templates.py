"""The supervisor's side of preloading: which template forks a worker; when templates start and end.

A template belongs to one generation. It is started when a worker is wanted and no template can fork it. It
stays while it is its generation's newest, or a worker that it forked lives. The template that forked a worker
never forks its replacement when it is recycled. Not for the messages to and from a template (template.py).
"""

from __future__ import annotations

import functools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mooring.logs.log import Log
from mooring.plan.plan import Plan
from mooring.supervisor.lifecycle import Notice
from mooring.supervisor.part import Part
from mooring.supervisor.template import Awaited, Template, start_template
from mooring.system import process
from mooring.worker.messages import Failure
from mooring.worker.seat import Seat

_LAST_WAIT = 0.5  # seconds for the kernel to end a killed template
_MOST_ERRNO = 4095  # MAX_ERRNO of linux/err.h


class Roster(Protocol):
    """What `Templates` needs of `Workers`."""

    selector: selectors.BaseSelector

    def is_alive(self, serial: int) -> bool:
        """Whether a worker with this serial number was ordered, and is not forgotten yet."""

    def is_worker(self, pid: int) -> bool:
        """Whether this is the pid of a worker."""

    def inherited(self) -> list[int]:
        """The descriptors that every worker may inherit."""

    def forked(self, serial: int, pid: int) -> None:
        """Note the pid of a worker that was ordered."""


class Templates(Part):
    """All templates. `begin` returns the function that a template's process runs."""

    def __init__(
        self, roster: Roster, begin: Callable[[Plan, socket.socket, int], Callable[[], int]], log: Log
    ) -> None:
        self.all: list[Template] = []
        self.on_exit: Callable[[int, process.Reaped, Failure | None], None] = lambda *_: None
        self.on_refused: Callable[[int, int], None] = lambda *_: None
        self._roster, self._begin, self._log = roster, begin, log
        self._number = 0
        self._wanted = {1}  # generations that may still need workers
        self._origin: dict[int, int] = {}  # by a worker's serial, the number of its template
        self._recycled: dict[int, int] = {}  # by slot, the template's number of the worker to replace

    # -- what Workers and the supervisor ask for -------------------------------------------------------------

    def order(self, serial: int, slot: int, generation: int, seat: Seat, report: int, plan: Plan) -> int:  # noqa: PLR0917
        """Have a worker forked; its pid comes in a later message. Raises OSError where the system refuses."""
        awaited = Awaited(serial, generation, seat, os.dup(report), plan)
        try:
            self._enlist(awaited, self._recycled.pop(slot, 0))
        except OSError:
            os.close(awaited.report)
            raise
        return 0

    def give_up(self, serial: int, *, killed: bool) -> None:
        """Cancel a worker that has no pid yet (`killed`: the order was to kill it, not to drain it)."""
        for template in self.all:
            template.give_up(serial, killed=killed)

    def leads(self, pid: int) -> bool:
        """Whether this is the pid of a template."""
        return any(template.pid == pid for template in self.all)

    def hear(self) -> None:
        """Read the messages of all templates: an unknown child may be a worker that was just forked."""
        for template in list(self.all):
            self._hear(template)

    def leave(self) -> None:
        """End all templates: they hold the listeners, and what they still owe is not wanted any more."""
        for template in self.all:
            template.end()
        for template in self.all:
            process.wait_for_end(template.pid, _LAST_WAIT)

    def reopen_logs(self) -> None:
        """Have the templates reopen their log files, since workers inherit them."""
        for template in self.all:
            process.send(template.pid, signal.SIGUSR1)

    def memory(self) -> int:
        """The sum of the templates' proportional set sizes, in bytes."""
        return sum(process.proportional_set_size(str(template.pid)) or 0 for template in self.all)

    def as_json(self) -> list[dict[str, Any]]:
        """For /status."""
        return [
            {"pid": t.pid, "generation": t.generation, "ready": t.booted, "workers": self._alive(t)}
            for t in self.all
        ]

    # -- what happens ----------------------------------------------------------------------------------------

    def told(self, kind: Notice, data: Mapping[str, Any], /) -> None:
        """React to a notice of the lifecycle."""
        if kind is Notice.ROLLING:
            self._wanted = {data["generation"], data["previous"]}
        elif kind in {Notice.ROLLED, Notice.ROLL_FAILED}:
            self._wanted = {data["generation"]}
        elif kind is Notice.RECYCLING:
            self._recycled[data["slot"]] = self._origin.get(data["serial"], 0)
        elif kind is Notice.STOPPING:
            self._wanted = set()

    def exited(self, ended: process.Reaped, /) -> None:
        """React to the end of a template: another one forks the workers that it owes, or they are lost."""
        template = next((each for each in self.all if each.pid == ended.pid), None)
        if template is None:
            return
        self._hear(template)
        self.all.remove(template)
        template.close()
        if template.booted and not template.ending:
            why = process.describe(ended.code)
            self._log.warning(f"template {template.number} has ended: {why}; its workers serve on")
        for awaited in template.owes:
            if template.booted and not awaited.unwanted and not awaited.again:
                awaited.again = True
                self._move(awaited)
            else:
                os.close(awaited.report)
                self.on_exit(awaited.serial, ended, template.failure)

    def expire(self) -> None:
        """End the templates that are no longer needed."""
        self._origin = {s: number for s, number in self._origin.items() if self._roster.is_alive(s)}
        for template in self.all:
            newest = template.generation in self._wanted and template is self._choose(template.generation, 0)
            if not (template.owes or self._alive(template) or newest):
                template.end()

    def busy(self) -> bool:
        """Whether a template still runs; the supervisor waits for its end."""
        self.expire()
        return bool(self.all)

    # -- which template --------------------------------------------------------------------------------------

    def _enlist(self, awaited: Awaited, beyond: int) -> None:
        """Give the worker to a template with a number above `beyond`; to a new one where there is none."""
        template = self._choose(awaited.generation, beyond) or self._start(awaited.generation, awaited.plan)
        self._origin[awaited.serial] = template.number
        template.owes.append(awaited)
        template.ask()

    def _move(self, awaited: Awaited) -> None:
        try:
            self._enlist(awaited, 0)
        except OSError as error:
            self._refuse(awaited, error)

    def _refuse(self, awaited: Awaited, error: OSError) -> None:
        os.close(awaited.report)
        self.on_refused(awaited.serial, process.errno_of(error))

    def _choose(self, generation: int, beyond: int) -> Template | None:
        """The newest booted template with a number above `beyond`, else the newest such; None: no such."""
        found = [t for t in self.all if t.generation == generation and t.number > beyond and not t.ending]
        return max(found, key=lambda template: (template.booted, template.number), default=None)

    def _alive(self, template: Template) -> int:
        """How many living workers the template has forked, or still owes."""
        alive = [number for serial, number in self._origin.items() if self._roster.is_alive(serial)]
        return alive.count(template.number)

    def _start(self, generation: int, plan: Plan) -> Template:
        selector = self._roster.selector
        begin = functools.partial(self._begin, plan)
        self._number += 1
        template = start_template(self._number, generation, begin, self._roster.inherited(), selector)
        self.all.append(template)
        selector.register(template.channel, selectors.EVENT_READ, lambda: self._hear(template))
        self._log.debug(f"template {template.number} is starting (generation {generation})")
        return template

    # -- what a template says --------------------------------------------------------------------------------

    def _hear(self, template: Template) -> None:
        for message in template.read():
            self._on_message(template, message)

    def _on_message(self, template: Template, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event == "booted" and not template.booted:
            template.booted = True
            seconds = time.monotonic() - template.born
            self._log.info(f"template {template.number} is ready after {seconds:.2f} s")
        if not template.asked or template.owes[0].serial != message.get("serial"):
            return
        pid, number = message.get("worker"), message.get("errno")
        if event == "forked" and type(pid) is int and self._is_new(pid):
            self._forked(template.answered(), pid)
        elif event == "refused" and type(number) is int and 0 < number <= _MOST_ERRNO:
            self.on_refused(template.answered().serial, number)
        self._go_on(template)

    def _go_on(self, template: Template) -> None:
        while template.owes and not template.asked:
            awaited = template.owes[0]
            try:
                template.ask()
            except OSError as error:
                self._refuse(awaited, error)

    def _is_new(self, pid: int) -> bool:
        """Whether a pid can be a new worker's. The application has the channel too, and is not trusted."""
        return pid > 1 and not self._roster.is_worker(pid) and not self.leads(pid)

    def _forked(self, awaited: Awaited, pid: int) -> None:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # killed before it was told to begin, and reaped as an unknown child
            self.on_exit(awaited.serial, process.Reaped(pid, -signal.SIGKILL), None)
            return
        self._roster.forked(awaited.serial, pid)
        if awaited.unwanted:
            process.kill_group(pid)
