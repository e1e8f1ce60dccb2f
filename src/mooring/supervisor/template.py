"""One template as the supervisor knows it: its process, the channel to it, and the workers that it owes.

Not for what a template's process does (worker/template.py), nor which template forks a worker (templates.py).
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mooring.plan.plan import Plan
from mooring.system import process
from mooring.worker import messages
from mooring.worker.messages import Failure
from mooring.worker.seat import Seat
from mooring.worker.template import Order

_PACKET = 65536

BeginTemplate = Callable[[socket.socket, int], Callable[[], int]]
"""What a template's process runs, given its channel and the supervisor's pid."""


@dataclass(slots=True)
class Awaited:
    """A worker that is not forked yet. `report` is the worker's end of its report pipe."""

    serial: int
    generation: int
    seat: Seat
    report: int
    plan: Plan
    unwanted: bool = False
    killed: bool = False  # the order was to kill it, not to drain it
    again: bool = False  # a template has ended once before it forked this worker


@dataclass(slots=True)
class Template:
    """One template. `owes` are the workers that it has yet to fork; if `asked`, it works on the first."""

    number: int
    generation: int
    pid: int
    channel: socket.socket
    selector: selectors.BaseSelector
    born: float = field(default_factory=time.monotonic)
    owes: list[Awaited] = field(default_factory=list)
    asked: bool = False
    booted: bool = False
    failure: Failure | None = None
    ending: bool = False

    def ask(self) -> None:
        """Ask for the next worker, one at a time; while the template imports, the order waits in the channel.

        Raises OSError where the system refuses; then the worker is no longer owed.
        """
        if self.asked or not self.owes:
            return
        awaited = self.owes[0]
        order = Order(awaited.serial, awaited.plan, awaited.seat)
        fds = [awaited.report, *([awaited.seat.stacks] if awaited.seat.stacks >= 0 else ())]
        try:
            socket.send_fds(self.channel, [order.encode()], fds)
        except ConnectionError:
            pass  # the template has ended: `Templates.exited` follows
        except OSError:
            self.owes.remove(awaited)
            raise
        self.asked = True

    def answered(self) -> Awaited:
        """The worker that was asked for; it is no longer owed."""
        self.asked = False
        awaited = self.owes.pop(0)
        os.close(awaited.report)
        return awaited

    def give_up(self, serial: int, *, killed: bool) -> None:
        """Note that an owed worker is not wanted any more.

        Where no owed worker is wanted, the template is killed if it still imports, or if one of them was to
        be killed: then the template hangs. Otherwise it forks them at once.
        """
        for awaited in self.owes:
            if awaited.serial == serial:
                awaited.unwanted, awaited.killed = True, awaited.killed or killed
        hopeless = not self.booted or any(each.killed for each in self.owes)
        if hopeless and self.owes and all(each.unwanted for each in self.owes):
            self.end()

    def read(self) -> Iterator[dict[str, Any]]:
        """The messages that have arrived."""
        while self.channel.fileno() >= 0:
            try:
                data = self.channel.recv(_PACKET)
            except OSError:
                return  # nothing more for now
            if not data:
                self._deafen()  # the template has ended: `Templates.exited` follows
                return
            message = messages.decode(data)
            if message is not None:
                self.failure = messages.failure(message) or self.failure
                yield message

    def end(self) -> None:
        """Kill the template: it has nothing to finish."""
        if not self.ending:
            self.ending = True
            process.kill_group(self.pid)

    def close(self) -> None:
        """Close the channel, after the process was reaped."""
        self._deafen()
        self.channel.close()

    def _deafen(self) -> None:
        with suppress(KeyError):
            self.selector.unregister(self.channel)


def start_template(
    number: int, generation: int, begin: BeginTemplate, keep: list[int], selector: selectors.BaseSelector
) -> Template:
    """Start a template's process, which inherits `keep`. Raises OSError where the system refuses."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = process.spawn(begin(theirs, os.getpid()), [*keep, theirs.fileno()])
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return Template(number, generation, pid, ours, selector)
