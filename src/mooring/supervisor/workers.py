"""The processes behind the lifecycle's serial numbers: spawn them, hear their reports, know their pids."""

from __future__ import annotations

import os
import select
import selectors
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mooring.plan.plan import Plan, Report
from mooring.scoreboard.row import DROPPED
from mooring.scoreboard.totals import Totals
from mooring.system import process
from mooring.system.memfd import memory
from mooring.worker import heartbeat, messages
from mooring.worker.messages import Failure
from mooring.worker.seat import Seat

if TYPE_CHECKING:
    from mooring.logs.access.keeper import LogKeeper

_EARLY_MS = 500
_READS = 16  # of 64 KiB, which is what a pipe holds: a worker that floods its pipe cannot hold the loop


@dataclass(slots=True)
class WorkerHandle:
    """One worker process and what it has said so far. Its pid is 0 until its template has forked it."""

    serial: int
    slot: int
    generation: int
    pid: int
    pipe: int
    born: float
    plan: Plan  # that it was given
    report: Report | None = None
    failure: Failure | None = None
    size: int | None = None  # how many workers an engine's arbiter wants, as it says
    resizing: bool = False  # it has been told to change that, and has not answered yet
    buffer: bytes = b""
    stacks: int = -1  # where it writes its stacks when it is asked to; below 0: nowhere


class Spawner(Protocol):
    """How a worker's process comes to be: forked by the supervisor (`Forks`), or by a template
    (templates.py).
    """

    def order(self, serial: int, slot: int, generation: int, seat: Seat, report: int, plan: Plan) -> int:  # noqa: PLR0917
        """Have a worker forked: its pid; 0 where that is told later. Raises OSError where the system refuses.

        `report` is the worker's end of its report pipe.
        """

    def give_up(self, serial: int, *, killed: bool) -> None:
        """A worker that has no pid yet is to end (`killed`: its deadline has passed)."""

    def leads(self, pid: int) -> bool:
        """Whether that process forks workers."""

    def hear(self) -> None:
        """Take note of the workers that have been forked."""

    def reopen_logs(self) -> None:
        """Have the log files opened anew that workers will inherit."""

    def memory(self) -> int:
        """Bytes that its own processes take (proportional set size)."""

    def as_json(self) -> list[dict[str, Any]]:
        """Its own processes, for /status."""


class Forks:
    """Workers forked by this process: `work(plan, report, seat)` returns what one runs."""

    def __init__(self, work: Callable[[Plan, int, Seat], Callable[[], int]], keep: list[int]) -> None:
        self._work, self._keep = work, keep

    def order(self, _serial: int, _slot: int, _generation: int, seat: Seat, report: int, plan: Plan) -> int:
        """Fork now."""
        return process.spawn(self._work(plan, report, seat), [*self._keep, *seat.keep, report])

    def give_up(self, serial: int, *, killed: bool) -> None:
        """Each has its pid at once."""

    def leads(self, _pid: int) -> bool:
        """No process in between."""
        return False

    def hear(self) -> None:
        """Each has its pid at once."""

    def reopen_logs(self) -> None:
        """Workers inherit this process's own."""

    def memory(self) -> int:
        """No process in between."""
        return 0

    def as_json(self) -> list[dict[str, Any]]:
        """No process in between."""
        return []


class Workers:
    """Starts handles of a plan, by the spawner. `keep` are the descriptors that its processes inherit.

    `plan` is the newest revision of the one that serves, and what a handle is given that gets no other.
    """

    def __init__(
        self,
        plan: Plan,
        spawner: Spawner,
        keep: list[int],
        selector: selectors.BaseSelector,
        access: LogKeeper | None = None,
    ) -> None:
        self.plan = plan
        self.spawner = spawner
        self.keep = keep
        self.selector = selector
        self.access = access
        self.scoreboard = Totals()
        self.handles: dict[int, WorkerHandle] = {}
        self.serials: dict[int, int] = {}
        self.started_ns = 0  # since the epoch, before worker 0 could read any file

    def spawn_early(self) -> None:
        """Start worker 0 before the lifecycle is there to ask; where the system refuses, it will ask."""
        self.started_ns = time.time_ns()
        with suppress(OSError):
            self.spawn(0, slot=0, generation=1)

    def close(self) -> None:
        """Let the access log's last lines be written, and give back the shared memory."""
        if self.access is not None:
            self.access.close()
        self.scoreboard.close()

    def totals(self) -> list[float]:
        """As Row.counts: what all workers have counted, and the lines that the log writer has lost."""
        totals = self.scoreboard.totals()
        if self.access is not None:
            totals[DROPPED] += self.access.rings.lost
        return totals

    def reserved(self, report: Report, handle: WorkerHandle) -> int:
        """Bytes that the processes take that are no workers, with that handle's arbiter."""
        own = process.proportional_set_size() or 0
        if report.has_arbiter:
            own += process.proportional_set_size(str(handle.pid)) or 0  # the arbiter
        if self.access is not None and self.access.pid:
            own += process.proportional_set_size(str(self.access.pid)) or 0  # the log writer
        return own + self.spawner.memory()

    def wait_for_news(self, signals: int) -> None:
        """Wait until worker 0 has said something, a signal has come, or half a second has passed.

        The log writer is started then: lines wait in the rings, and a single core is the application's.
        """
        poller = select.poll()
        for fd in (signals, *(handle.pipe for handle in self.handles.values())):
            poller.register(fd, select.POLLIN)
        poller.poll(_EARLY_MS)
        if self.access is not None:
            self.access.start()

    def spawn(self, serial: int, slot: int, generation: int, plan: Plan | None = None) -> WorkerHandle:
        """Start a process, but for one that was started early. Raises OSError where the system refuses."""
        if serial in self.handles:
            return self.handles[serial]
        plan = plan or self.plan
        read, write = os.pipe()
        stacks = -1
        try:
            if heartbeat.timeout(plan.settings) is not None:
                stacks = memory("mooring-stacks")
            seat = self._seat(serial, slot, generation, plan)._replace(stacks=stacks)
            pid = self.spawner.order(serial, slot, generation, seat, write, plan)
        except OSError:
            self.scoreboard.take(serial)
            os.close(read)
            if stacks >= 0:
                os.close(stacks)
            raise
        finally:
            os.close(write)
        os.set_blocking(read, False)
        handle = WorkerHandle(serial, slot, generation, pid, read, time.monotonic(), plan, stacks=stacks)
        self.handles[serial] = handle
        if pid:
            self.serials[pid] = serial
        self.selector.register(read, selectors.EVENT_READ, handle)
        return handle

    def _seat(self, serial: int, slot: int, generation: int, plan: Plan) -> Seat:
        """The worker's place on the scoreboard, and its rings."""
        rows = self.scoreboard.give(serial, plan.workers if plan.has_arbiter else 0)
        rings = wake = None
        if self.access is not None:
            rings, wake = self.access.rings.fd, self.access.rings.wake
            for row in rows:
                self.access.rings.give(row)
        return Seat(slot, generation, self.scoreboard.fd, rows, rings, wake)

    def hear(self, handle: WorkerHandle) -> list[dict[str, Any]]:
        """The complete messages that have arrived; at the end of the pipe it is no longer watched."""
        for _ in range(_READS):
            if handle.pipe < 0:
                break
            try:
                data = os.read(handle.pipe, 65536)
            except BlockingIOError:
                break
            if not data:
                self._deafen(handle)
                break
            handle.buffer += data
        if not handle.pid:
            self.spawner.hear()  # of its pid, which came before anything it says
        *lines, handle.buffer = handle.buffer.split(b"\n")
        handle.buffer = handle.buffer[-65536:]
        return [message for message in map(messages.decode, lines) if message is not None]

    def _deafen(self, handle: WorkerHandle) -> None:
        if handle.pipe >= 0:
            self.selector.unregister(handle.pipe)
            os.close(handle.pipe)
            handle.pipe = -1

    def __contains__(self, pid: object) -> bool:
        """Whether a child leads a process group of workers: it is one, or a template."""
        if pid in self.serials or not isinstance(pid, int):
            return pid in self.serials
        self.spawner.hear()  # it may have been forked, and have ended, since
        return pid in self.serials or self.spawner.leads(pid)

    def is_alive(self, serial: int) -> bool:
        """Whether a worker of that serial number has been ordered, and not yet forgotten."""
        return serial in self.handles

    def is_worker(self, pid: int) -> bool:
        """Whether that is the pid of a worker."""
        return pid in self.serials

    def inherited(self) -> list[int]:
        """All descriptors that any worker inherits, whichever its row."""
        return [*self.keep, self.scoreboard.fd, *(self.access.keep if self.access is not None else ())]

    def forked(self, serial: int, pid: int) -> None:
        """The worker that was ordered has that pid."""
        self.handles[serial].pid = pid
        self.serials[pid] = serial

    def forget(self, pid: int) -> WorkerHandle | None:
        """The handle whose process was reaped, no longer one; None for a stranger's pid."""
        serial = self.serials.pop(pid, None)
        if serial is None:
            return None
        return self.handles.pop(serial)

    def release(self, handle: WorkerHandle) -> None:
        """Close a forgotten handle's pipe, and count what it has served for good."""
        self._deafen(handle)
        if handle.stacks >= 0:
            os.close(handle.stacks)
            handle.stacks = -1
        self.scoreboard.take(handle.serial)
