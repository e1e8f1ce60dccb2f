"""Records where a hung worker hangs, in the log and in /status, before it is killed.

On a signal, the worker's faulthandler writes the stacks of all threads into a file in memory, without the
interpreter's lock. A worker that cannot do even that (it is frozen) is killed after LONGEST seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from mooring import resources
from mooring.logs.escape import escape
from mooring.scoreboard.row import MEMORY
from mooring.supervisor import frames
from mooring.supervisor.lifecycle import Cause
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.part import Part
from mooring.supervisor.workers import WorkerHandle
from mooring.system import process
from mooring.worker.heartbeat import SIGNAL

LONGEST = 0.8  # seconds; less than Policy.reap, after which the lifecycle kills again
HANGS = 5  # the most that /status shows
# Seconds: between two looks at the file; without a new byte in it, after which the stacks are complete.
_POLL, _SETTLED = 0.02, 0.1
_REQUESTS = 20  # the most that a record shows
# Of the stacks: the bytes that are read, the last ones, since the main thread comes last; and the characters
# that are kept, the first ones, since the application's frames come first then.
_READ, _MOST = 1 << 20, 24_576


class Case(NamedTuple):
    """A hung worker whose stacks are awaited.

    `stacks` is the descriptor of their file, `size` its bytes at the last look. `began` is when the wait
    began, `grown` when the file last grew (monotonic seconds). `facts` are the fields of the record.
    """

    handle: WorkerHandle
    stacks: int
    facts: dict[str, Any]
    began: float
    size: int
    grown: float


class HungStacks(Part):
    """Delays the kill of a hung worker until its stacks are written."""

    def __init__(self, supervisor: Supervisor, silent: Callable[[int, float], float]) -> None:
        self._supervisor = supervisor
        self._silent = silent
        self._cases: dict[int, Case] = {}
        self._asked: set[int] = set()

    def examine(self, serial: int, cause: Cause) -> bool:
        """Ask a hung worker for its stacks. Returns whether this part does the kill, now or later."""
        handle = self._supervisor.workers.handles.get(serial)
        if serial in self._cases:
            self._close(serial)
            return True
        if cause is not Cause.HEARTBEAT_DEADLINE or handle is None or serial in self._asked:
            return False
        self._asked = {each for each in self._asked if each in self._supervisor.workers.handles} | {serial}
        now = time.monotonic()
        stacks, handle.stacks = handle.stacks, -1  # taken over: there may be no descriptor for a duplicate
        self._cases[serial] = Case(handle, stacks, self._facts(handle, now), now, 0, now)
        if stacks < 0:
            self._close(serial)
        else:
            process.send(handle.pid, SIGNAL)
        return True

    def next_deadline(self) -> float | None:
        """When the next look at the files is due (monotonic seconds); None while no stacks are awaited."""
        return time.monotonic() + _POLL if self._cases else None

    def expire(self) -> None:
        """Kill the workers whose stacks are complete, or late."""
        now = time.monotonic()
        for serial, case in list(self._cases.items()):
            size = os.fstat(case.stacks).st_size
            if size != case.size:
                self._cases[serial] = case = case._replace(size=size, grown=now)  # noqa: PLW2901
            gone = serial not in self._supervisor.workers.handles
            if gone or (size and now - case.grown >= _SETTLED) or now - case.began >= LONGEST:
                self._close(serial)

    def _facts(self, handle: WorkerHandle, now: float) -> dict[str, Any]:
        row = next(iter(self._supervisor.workers.scoreboard.rows.get(handle.serial, ())), None)
        requests = row.in_flight(now)[:_REQUESTS] if row is not None else []
        return {
            "slot": handle.slot,
            "pid": handle.pid,
            "generation": handle.generation,
            "silent_s": round(self._silent(handle.serial, now), 1),
            "requests": [
                {"method": r.method, "path": escape(r.path.partition("?")[0]), "age_s": round(r.age, 1)}
                for r in requests
            ],
            "memory_bytes": int(row.read(MEMORY)) if row is not None else None,
            "oom_kills": resources.oom_kills(),
        }

    def _close(self, serial: int) -> None:
        """Kill the worker, and record what was found."""
        case = self._cases.pop(serial)
        plan = case.handle.plan
        own = frames.owner(plan.target.module)
        stacks = frames.arranged(_read(case.stacks), own)[:_MOST]
        if serial in self._supervisor.workers.handles:
            process.kill_group(case.handle.pid)
        facts, where = case.facts, escape(frames.place(stacks, own))
        self._supervisor.log.record(
            "error",
            f"worker {facts['slot']} (pid {facts['pid']}) is hung: no move for {facts['silent_s']} s"
            f"{where and f', in {where}'}. {_advice(case.handle)}",
            {"notice": "hung", "serial": serial, **facts},
            told=("notice", "slot", "pid", "silent_s"),
            traceback=stacks or "no stacks: it did not answer in time",
        )
        hangs = self._supervisor.history.last_hangs
        shown = [escape(line) for line in stacks.splitlines()]
        hangs.append({"time": time.time(), **facts, "stacks": shown})
        del hangs[:-HANGS]


def _advice(handle: WorkerHandle) -> str:
    """What to do, for people."""
    limit = f"MOORING_TIMEOUT ({handle.plan.settings.timeout:g} s)"
    if handle.report is not None and handle.report.interface == "wsgi":
        more = f"{limit} or MOORING_THREADS ({handle.plan.threads})"
        return f"Where requests may take so long, raise {more}; else move what blocks to a task queue."
    return f"Where it may take so long, raise {limit}; else move what blocks the event loop to a thread."


def _read(fd: int) -> str:
    if fd < 0:
        return ""
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, _READ, max(0, size - _READ))
    except OSError:
        return ""
    finally:
        os.close(fd)
    return data.decode("utf-8", "backslashreplace")
