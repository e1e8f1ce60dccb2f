"""The supervisor's side of preloading: which template a worker comes from; when templates come and go.

A template is of one generation. It is made when a worker is wanted and there is none to fork it from. It
stays while it is its generation's newest, or a worker of its own lives. A recycled worker's replacement never
comes from the template that the worker itself came from. What a template does: template.py.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mooring import process, reports
from mooring.lifecycle import Notice
from mooring.logs import Log
from mooring.plan import Plan
from mooring.reports import Failure
from mooring.seat import Seat
from mooring.template import Order

if TYPE_CHECKING:
    from mooring.crew import Crew

_PACKET = 65536


@dataclass(slots=True)
class Awaited:
    """A worker that is yet to be forked. `report` is its end of the report pipe, which it will be given."""

    serial: int
    generation: int
    seat: Seat
    report: int
    unwanted: bool = False
    killed: bool = False  # its deadline has passed
    again: bool = False  # its template has died under it once


@dataclass(slots=True)
class Template:
    """A template's process. The first of those that it owes is the one it has been asked for, if `asked`."""

    number: int
    generation: int
    pid: int
    channel: socket.socket
    born: float
    owes: list[Awaited] = field(default_factory=list)
    asked: bool = False
    booted: bool = False
    failure: Failure | None = None
    ending: bool = False


class Templates:
    """All templates of a crew; a timer of the supervisor's. `begin` returns what a template runs."""

    def __init__(
        self, crew: Crew, begin: Callable[[Plan, socket.socket, int], Callable[[], int]], log: Log
    ) -> None:
        self.all: list[Template] = []
        self.on_exit: Callable[[int, process.Exit, Failure | None], None] = lambda *_: None
        self.on_refused: Callable[[int, str], None] = lambda *_: None
        self._crew, self._begin, self._log = crew, begin, log
        self._number = 0
        self._wanted = {1}  # generations that workers may yet be forked for
        self._origin: dict[int, int] = {}  # by a worker's serial, the number of its template
        self._recycled: dict[int, int] = {}  # by slot, the template of the worker that is to be replaced

    # -- what the crew and the supervisor ask for ------------------------------------------------------------

    def order(self, serial: int, slot: int, generation: int, seat: Seat, report: int) -> None:
        """Have a worker forked; a later message tells its pid. Raises OSError where the system refuses."""
        awaited = Awaited(serial, generation, seat, os.dup(report))
        try:
            self._enlist(awaited, self._recycled.pop(slot, 0))
        except OSError:
            os.close(awaited.report)
            raise

    def give_up(self, serial: int, *, killed: bool) -> None:
        """A worker that has no pid yet is to end (`killed`: its deadline has passed).

        A template that all it owes have given up is killed: it hangs, or the import is of no use any more.
        """
        for template in self.all:
            for awaited in template.owes:
                if awaited.serial == serial:
                    awaited.unwanted, awaited.killed = True, awaited.killed or killed
            hopeless = not template.booted or any(each.killed for each in template.owes)
            if hopeless and template.owes and all(each.unwanted for each in template.owes):
                self._end(template)

    def leads(self, pid: int) -> bool:
        """Whether it is a template's process."""
        return any(template.pid == pid for template in self.all)

    def hear(self) -> None:
        """Hear all templates: a child that nobody knows may have been forked just now."""
        for template in list(self.all):
            self._hear(template)

    def reopen_logs(self) -> None:
        """Have them open their log files anew, since workers inherit them."""
        for template in self.all:
            process.reopen_logs(template.pid)

    def memory(self) -> int:
        """What they take, in bytes, without what they share with workers."""
        return sum(process.proportional_set_size(str(template.pid)) or 0 for template in self.all)

    def as_json(self) -> list[dict[str, Any]]:
        """For /status."""
        return [
            {
                "pid": each.pid,
                "generation": each.generation,
                "ready": each.booted,
                "workers": self._alive(each),
            }
            for each in self.all
        ]

    # -- what happens ----------------------------------------------------------------------------------------

    def told(self, kind: Notice, data: Mapping[str, Any]) -> None:
        """What the lifecycle has announced."""
        if kind is Notice.ROLLING:
            self._wanted = {data["generation"], data["previous"]}
        elif kind in {Notice.ROLLED, Notice.ROLL_FAILED}:
            self._wanted = {data["generation"]}
        elif kind is Notice.RECYCLING:
            self._recycled[data["slot"]] = self._origin.get(data["serial"], 0)
        elif kind is Notice.STOPPING:
            self._wanted = set()

    def exited(self, ended: process.Exit) -> None:
        """A process that is no worker was reaped: what a dead template owes is lost, or another's to do."""
        template = next((each for each in self.all if each.pid == ended.pid), None)
        if template is None:
            return
        self._hear(template)
        self.all.remove(template)
        self._deafen(template)
        template.channel.close()
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

    def next_deadline(self) -> float | None:
        """None: it only acts on what happens."""
        return None

    def expire(self) -> None:
        """End the templates that nobody needs any more."""
        self._origin = {s: number for s, number in self._origin.items() if s in self._crew.members}
        for template in self.all:
            newest = template.generation in self._wanted and template is self._choose(template.generation, 0)
            if not (template.owes or self._alive(template) or newest):
                self._end(template)

    def busy(self) -> bool:
        """Whether there is any, while the supervisor waits for its end."""
        self.expire()
        return bool(self.all)

    # -- one template ----------------------------------------------------------------------------------------

    def _enlist(self, awaited: Awaited, beyond: int) -> None:
        """Give it to a template with a number beyond that one; to a new one where there is none."""
        template = self._choose(awaited.generation, beyond) or self._start(awaited.generation)
        self._origin[awaited.serial] = template.number
        template.owes.append(awaited)
        self._ask(template)

    def _move(self, awaited: Awaited) -> None:
        try:
            self._enlist(awaited, 0)
        except OSError as error:
            os.close(awaited.report)
            self.on_refused(awaited.serial, f"could not be spawned: {error.strerror}")

    def _choose(self, generation: int, beyond: int) -> Template | None:
        """The newest that has booted, else the newest."""
        found = [t for t in self.all if t.generation == generation and t.number > beyond and not t.ending]
        return max(found, key=lambda template: (template.booted, template.number), default=None)

    def _alive(self, template: Template) -> int:
        """How many workers that it has forked, or owes, there are."""
        return sum(number == template.number for s, number in self._origin.items() if s in self._crew.members)

    def _start(self, generation: int) -> Template:
        crew = self._crew
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keep = [*crew.keep, crew.tally.fd, theirs.fileno()]
        if crew.access is not None:
            keep += crew.access.keep
        try:
            pid = process.spawn(self._begin(crew.plan, theirs, os.getpid()), keep)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._number += 1
        template = Template(self._number, generation, pid, ours, time.monotonic())
        self.all.append(template)
        crew.selector.register(ours, selectors.EVENT_READ, lambda: self._hear(template))
        self._log.debug(f"template {template.number} is starting (generation {generation})")
        return template

    def _ask(self, template: Template) -> None:
        """Ask for the next worker, one at a time; a template that still imports finds it when it has."""
        if template.asked or not template.owes:
            return
        awaited = template.owes[0]
        order = Order(awaited.serial, self._crew.plan, awaited.seat)
        fds = [awaited.report, *([awaited.seat.stacks] if awaited.seat.stacks >= 0 else ())]
        template.asked = True
        try:
            socket.send_fds(template.channel, [order.encode()], fds)
        except ConnectionError:
            pass  # it has ended: the reaper will tell
        except OSError as error:
            template.asked = False
            template.owes.remove(awaited)
            if awaited.serial not in self._crew.members:
                raise  # the crew is about to make it one
            os.close(awaited.report)
            self.on_refused(awaited.serial, f"could not be spawned: {error.strerror}")

    def _deafen(self, template: Template) -> None:
        with suppress(KeyError):
            self._crew.selector.unregister(template.channel)

    def _end(self, template: Template) -> None:
        if not template.ending:
            template.ending = True
            process.kill_group(template.pid)

    # -- what it says ----------------------------------------------------------------------------------------

    def _hear(self, template: Template) -> None:
        while template in self.all:
            try:
                data = template.channel.recv(_PACKET)
            except OSError:
                return  # nothing more for now, or for good: the reaper will tell
            if not data:
                self._deafen(template)  # it has ended: the reaper will tell
                return
            message = reports.decode(data)
            if message is not None:
                self._on_message(template, message)

    def _on_message(self, template: Template, message: dict[str, Any]) -> None:
        template.failure = reports.failure(message) or template.failure
        event = message.get("event")
        if event == "booted" and not template.booted:
            template.booted = True
            seconds = time.monotonic() - template.born
            self._log.info(f"template {template.number} is ready after {seconds:.2f} s")
        if not template.asked or template.owes[0].serial != message.get("serial"):
            return
        pid, why = message.get("worker"), message.get("why")
        if event == "forked" and type(pid) is int and self._is_new(pid):
            self._forked(self._done(template), pid)
        elif event == "refused" and isinstance(why, str):
            self.on_refused(self._done(template).serial, f"could not be spawned: {why}")
        self._ask(template)

    def _done(self, template: Template) -> Awaited:
        template.asked = False
        awaited = template.owes.pop(0)
        os.close(awaited.report)
        return awaited

    def _is_new(self, pid: int) -> bool:
        """Whether a pid can be a new worker's: the application has the channel too, and is not trusted."""
        return pid > 1 and pid not in self._crew.serials and not self.leads(pid)

    def _forked(self, awaited: Awaited, pid: int) -> None:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # killed before it was told to begin, and reaped as nobody we know
            self.on_exit(awaited.serial, process.Exit(pid, -signal.SIGKILL), None)
            return
        self._crew.members[awaited.serial].pid = pid
        self._crew.serials[pid] = awaited.serial
        if awaited.unwanted:
            process.kill_group(pid)
