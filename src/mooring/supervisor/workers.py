"""The worker processes: spawn them, read their reports, map the lifecycle's serial numbers to pids."""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
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
from mooring.worker.messages import DRAIN, Failure
from mooring.worker.seat import Seat

if TYPE_CHECKING:
    from mooring.logs.access.keeper import LogKeeper

_EARLY_MS = 500
_READS = 16  # of 64 KiB: a worker that floods its pipe cannot block the loop


@dataclass(slots=True)
class WorkerHandle:
    """One worker process, and what it has reported so far. `pid` is 0 until its template has forked it."""

    serial: int
    slot: int
    generation: int
    pid: int
    pipe: int
    born: float
    plan: Plan  # the one that it was given
    report: Report | None = None
    failure: Failure | None = None
    size: int | None = None  # how many workers an engine's arbiter wants, as it reports
    resizing: bool = False  # the arbiter was told to change its size, and has not answered yet
    buffer: bytes = b""
    stacks: int = -1  # descriptor of the file that its stacks are written to; below 0: none


class Spawner(Protocol):
    """Starts worker processes: forked by the supervisor (`Forks`), or by a template (templates.py)."""

    def order(self, serial: int, slot: int, generation: int, seat: Seat, report: int, plan: Plan) -> int:  # noqa: PLR0917
        """Have a worker forked. Returns its pid, or 0 where the pid comes later, by `Workers.forked`.

        `report` is the worker's end of its report pipe. Raises OSError where the system refuses.
        """

    def give_up(self, serial: int, *, killed: bool) -> None:
        """Cancel a worker that has no pid yet (`killed`: the order was to kill it, not to drain it)."""

    def leads(self, pid: int) -> bool:
        """Whether the process with this pid forks workers."""

    def hear(self) -> None:
        """Read which workers have been forked since the last call."""

    def leave(self) -> None:
        """No worker will be wanted any more: have nobody hold the listeners who does not serve."""

    def reopen_logs(self) -> None:
        """Reopen the log files that workers will inherit."""

    def memory(self) -> int:
        """Bytes that the spawner's own processes take (proportional set size)."""

    def as_json(self) -> list[dict[str, Any]]:
        """The spawner's own processes, for /status."""


class Forks:
    """Forks workers from this process: `work(plan, report, seat)` returns the function that a worker runs."""

    def __init__(self, work: Callable[[Plan, int, Seat], Callable[[], int]], keep: list[int]) -> None:
        self._work, self._keep = work, keep

    def order(self, _serial: int, _slot: int, _generation: int, seat: Seat, report: int, plan: Plan) -> int:
        """Fork now."""
        return process.spawn(self._work(plan, report, seat), [*self._keep, *seat.keep, report])

    def give_up(self, serial: int, *, killed: bool) -> None:
        """Nothing to cancel: each worker has its pid at once."""

    def leads(self, _pid: int) -> bool:
        """False: no other process forks workers."""
        return False

    def hear(self) -> None:
        """Nothing to read: each worker has its pid at once."""

    def leave(self) -> None:
        """Nothing to do: this process has closed them."""

    def reopen_logs(self) -> None:
        """Nothing to do: workers inherit this process's log files."""

    def memory(self) -> int:
        """0: there are no other processes."""
        return 0

    def as_json(self) -> list[dict[str, Any]]:
        """An empty list: there are no other processes."""
        return []


class Workers:
    """Starts the worker processes by the spawner. `keep` are the descriptors that they inherit.

    `plan` is the newest revision of the plan that serves, and the default for a new worker.
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
        self.leave: Callable[[], None] = lambda: None  # closes the listeners here, and tells the workers to
        self.started_ns = 0  # nanoseconds since the epoch, before worker 0 could read any file

    def spawn_early(self) -> None:
        """Start worker 0 before the lifecycle runs. Where the system refuses, the lifecycle tries again."""
        self.started_ns = time.time_ns()
        with suppress(OSError):
            self.spawn(0, slot=0, generation=1)

    def leave_for_good(self) -> None:
        """The instance takes nothing new: close the listeners here, and where nobody serves them any more."""
        self.leave()
        self.spawner.leave()

    def close(self) -> None:
        """Let the access log's last lines be written, and release the shared memory."""
        if self.access is not None:
            self.access.close()
        self.scoreboard.close()

    def totals(self) -> list[float]:
        """The counts of all workers, laid out as Row.counts, plus the lines that the log writer has lost."""
        totals = self.scoreboard.totals()
        if self.access is not None:
            totals[DROPPED] += self.access.rings.lost
        return totals

    def reserved(self, report: Report, handle: WorkerHandle) -> int:
        """Bytes that all processes other than workers take, including this handle's arbiter."""
        own = process.proportional_set_size() or 0
        if report.has_arbiter:
            own += process.proportional_set_size(str(handle.pid)) or 0  # the arbiter
        if self.access is not None and self.access.pid:
            own += process.proportional_set_size(str(self.access.pid)) or 0  # the log writer
        return own + self.spawner.memory()

    def wait_for_news(self, signals: int) -> None:
        """Wait until worker 0 has reported, a signal has come, or half a second has passed.

        Only then is the log writer started: lines can wait in the rings, and on a single core the start would
        delay the application's import.
        """
        poller = select.poll()
        for fd in (signals, *(handle.pipe for handle in self.handles.values())):
            poller.register(fd, select.POLLIN)
        poller.poll(_EARLY_MS)
        if self.access is not None:
            self.access.start()

    def spawn(self, serial: int, slot: int, generation: int, plan: Plan | None = None) -> WorkerHandle:
        """Start a worker, unless it was started early. Raises OSError where the system refuses."""
        if serial in self.handles:
            return self.handles[serial]
        plan = plan or self.plan
        read, write = (end.detach() for end in socket.socketpair())  # the order to drain goes the other way
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
        """The complete messages that have arrived. A pipe that has ended is closed."""
        for _ in range(_READS):
            if handle.pipe < 0:
                break
            try:
                data = os.read(handle.pipe, 65536)
            except BlockingIOError:
                break
            except ConnectionResetError:  # it has ended without reading the order to drain
                data = b""
            if not data:
                self._deafen(handle)
                break
            handle.buffer += data
        if not handle.pid:
            self.spawner.hear()  # of the pid: its template sent it before the worker began
        *lines, handle.buffer = handle.buffer.split(b"\n")
        handle.buffer = handle.buffer[-65536:]
        return [message for message in map(messages.decode, lines) if message is not None]

    def drain(self, handle: WorkerHandle) -> None:
        """Order a worker to drain: by its report pipe, since the application may have the signal's handler.

        A worker that is not ready yet, and would not read the order, gets SIGTERM too; so does one that has
        closed its pipe. An engine's arbiter gets SIGTERM alone: it gives the order to its workers.
        """
        ordered = False
        if handle.pipe >= 0 and not handle.plan.has_arbiter:
            with suppress(OSError):  # it has closed its end
                ordered = os.write(handle.pipe, DRAIN) > 0
        if not ordered or handle.report is None:
            process.send(handle.pid, signal.SIGTERM)

    def _deafen(self, handle: WorkerHandle) -> None:
        if handle.pipe >= 0:
            self.selector.unregister(handle.pipe)
            os.close(handle.pipe)
            handle.pipe = -1

    def __contains__(self, pid: object) -> bool:
        """Whether a child leads a process group: it is a worker, or a template."""
        if pid in self.serials or not isinstance(pid, int):
            return pid in self.serials
        self.spawner.hear()  # a worker may have been forked, and have ended, since the last look
        return pid in self.serials or self.spawner.leads(pid)

    def is_alive(self, serial: int) -> bool:
        """Whether a worker with this serial number was ordered, and is not forgotten yet."""
        return serial in self.handles

    def is_worker(self, pid: int) -> bool:
        """Whether this is the pid of a worker."""
        return pid in self.serials

    def inherited(self) -> list[int]:
        """The descriptors that every worker may inherit, whichever row it has."""
        return [*self.keep, self.scoreboard.fd, *(self.access.keep if self.access is not None else ())]

    def forked(self, serial: int, pid: int) -> None:
        """Note the pid of a worker that was ordered."""
        self.handles[serial].pid = pid
        self.serials[pid] = serial

    def forget(self, pid: int) -> WorkerHandle | None:
        """Remove and return the handle of a reaped process; None where the pid is not a worker's."""
        serial = self.serials.pop(pid, None)
        if serial is None:
            return None
        return self.handles.pop(serial)

    def release(self, handle: WorkerHandle) -> None:
        """Close a forgotten handle's descriptors, and add the worker's counts to the totals."""
        self._deafen(handle)
        if handle.stacks >= 0:
            os.close(handle.stacks)
            handle.stacks = -1
        self.scoreboard.take(handle.serial)
