"""One template as the supervisor knows it: its process, the channel to it, and the workers that it owes.

What it does: worker/template.py. Which one a worker comes from: templates.py.
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
    """A worker that is yet to be forked. `report` is its end of the report pipe, which it will be given."""

    serial: int
    generation: int
    seat: Seat
    report: int
    plan: Plan
    unwanted: bool = False
    killed: bool = False  # its deadline has passed
    again: bool = False  # its template has died under it once


@dataclass(slots=True)
class Template:
    """The first of those that it owes is the one that it has been asked for, if it is `asked`."""

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
        """Ask for the next worker, one at a time; while it still imports, the order waits in the channel.

        Raises OSError where the system refuses; then it owes that one no more.
        """
        if self.asked or not self.owes:
            return
        awaited = self.owes[0]
        order = Order(awaited.serial, awaited.plan, awaited.seat)
        fds = [awaited.report, *([awaited.seat.stacks] if awaited.seat.stacks >= 0 else ())]
        try:
            socket.send_fds(self.channel, [order.encode()], fds)
        except ConnectionError:
            pass  # it has ended: the reaper will tell
        except OSError:
            self.owes.remove(awaited)
            raise
        self.asked = True

    def answered(self) -> Awaited:
        """What it was asked for, which it owes no more."""
        self.asked = False
        awaited = self.owes.pop(0)
        os.close(awaited.report)
        return awaited

    def give_up(self, serial: int, *, killed: bool) -> None:
        """One that it owes is not wanted any more. It is killed where that is so of all, unless it can still
        fork them in no time: it hangs, or its import is of no use.
        """
        for awaited in self.owes:
            if awaited.serial == serial:
                awaited.unwanted, awaited.killed = True, awaited.killed or killed
        hopeless = not self.booted or any(each.killed for each in self.owes)
        if hopeless and self.owes and all(each.unwanted for each in self.owes):
            self.end()

    def read(self) -> Iterator[dict[str, Any]]:
        """What it has said since."""
        while self.channel.fileno() >= 0:
            try:
                data = self.channel.recv(_PACKET)
            except OSError:
                return  # nothing more for now
            if not data:
                self._deafen()  # it has ended: the reaper will tell
                return
            message = messages.decode(data)
            if message is not None:
                self.failure = messages.failure(message) or self.failure
                yield message

    def end(self) -> None:
        """Kill it: it has nothing to finish."""
        if not self.ending:
            self.ending = True
            process.kill_group(self.pid)

    def close(self) -> None:
        """Its process was reaped: close the channel."""
        self._deafen()
        self.channel.close()

    def _deafen(self) -> None:
        with suppress(KeyError):
            self.selector.unregister(self.channel)


def start(
    number: int, generation: int, begin: BeginTemplate, keep: list[int], selector: selectors.BaseSelector
) -> Template:
    """Start a template's process, which keeps those descriptors. Raises OSError where the system refuses."""
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
