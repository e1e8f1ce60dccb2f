"""What /status and /metrics show of the past: rolls, exits with their reasons, hangs.

Filled from the lifecycle's notices. Not for the present state: admin/status.py.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mooring import resources
from mooring.supervisor.lifecycle import Cause, Notice, Reason, WorkerState
from mooring.system import process

# The label `reason` of mooring_worker_exits_total.
EXIT_LABELS = (
    "drained",  # it ended when it was told to, with its requests finished
    "recycled",  # the same, because it was due to be recycled
    "exit_code",  # it ended by itself
    "signal",  # killed by a signal that mooring did not send
    "out_of_memory",  # the kernel killed it for its memory
    "boot_failed",  # it ended before it was ready
    "boot_deadline",  # killed: it was not ready in time
    "heartbeat_deadline",  # killed: it gave no sign of life
    "grace_deadline",  # killed: its drain took longer than the grace period
    "stopped_now",  # killed: mooring was told to stop at once
    "spawn_failed",  # the system refused to start its process
)

# The label for each cause of an exit.
LABEL_BY_CAUSE = {
    Cause.CLEAN_EXIT: "exit_code",
    Cause.EXIT_CODE: "exit_code",
    Cause.TERMINATED: "signal",
    Cause.SIGNAL: "signal",
    Cause.OUT_OF_MEMORY: "out_of_memory",
    Cause.ENDED_EARLY: "boot_failed",
    Cause.FAILED: "boot_failed",
    Cause.NOT_SPAWNED: "spawn_failed",
    Cause.BOOT_DEADLINE: "boot_deadline",
    Cause.HEARTBEAT_DEADLINE: "heartbeat_deadline",
    Cause.GRACE_DEADLINE: "grace_deadline",
    Cause.STOP_NOW: "stopped_now",
    Cause.RECYCLED: "recycled",
    Cause.SUPERSEDED: "drained",
    Cause.BEYOND_SIZE: "drained",
    Cause.STOPPING: "drained",
}

_ENDINGS = {0: Cause.CLEAN_EXIT, -signal.SIGTERM: Cause.TERMINATED}
_OBEYED = (Cause.CLEAN_EXIT, Cause.TERMINATED)  # how a draining worker should end
_FRESH = 5.0  # seconds for which an OOM kill that the cgroup has counted explains a killed worker


def ended_by(code: int) -> Reason:
    """Why a process has ended, from its exit code or (negative) the signal that ended it."""
    cause = _ENDINGS.get(code, Cause.EXIT_CODE if code > 0 else Cause.SIGNAL)
    return Reason(cause, process.describe(code))


def label(state: WorkerState, cause: Cause, ordered: Cause | None) -> str:
    """The label of an exit, from the worker's last state, its cause, and the cause of the drain or kill."""
    obeyed = state is WorkerState.DRAINING and cause in _OBEYED
    if ordered is not None and (obeyed or state is WorkerState.KILLED):
        return LABEL_BY_CAUSE[ordered]
    found = LABEL_BY_CAUSE[cause]
    if state is WorkerState.STARTING:
        return "boot_failed" if found in ("exit_code", "signal") else found
    return "exit_code" if found in ("boot_failed", "spawn_failed") else found


class Exits:
    """Counts exits by reason, and failed ones by slot. `oom_kills` returns the OOM kills of the cgroup."""

    def __init__(self, oom_kills: Callable[[], int | None]) -> None:
        self.by_reason = dict.fromkeys(EXIT_LABELS, 0)
        self.failed: dict[int, int] = {}
        self._oom_kills = oom_kills
        self._oom_seen = oom_kills() or 0
        self._oom_left, self._oom_at = 0, 0.0  # kills not matched to a worker yet; when they were seen

    def note(self, kind: Notice, data: Mapping[str, Any]) -> str:
        """Count an exit, and return its reason; empty for any other notice."""
        if kind is not Notice.EXITED:
            return ""
        ordered = data["ordered"]
        reason = label(data["state"], data["why"].cause, ordered)
        self.by_reason[reason] += 1
        if data["failed"] or ordered in (Cause.BOOT_DEADLINE, Cause.HEARTBEAT_DEADLINE):
            self.failed[data["slot"]] = self.failed.get(data["slot"], 0) + 1
        return reason

    def explain(self, code: int) -> Reason:
        """Why a worker ended that mooring did not kill. `code` as for `ended_by`.

        A KILL counts as the kernel's, for its memory, where the cgroup has counted one more OOM kill.
        """
        reason = ended_by(code)
        if code != -signal.SIGKILL:
            return reason
        count, now = self._oom_kills() or 0, time.monotonic()
        if count > self._oom_seen:
            self._oom_left, self._oom_at = count - self._oom_seen, now
        self._oom_seen = max(count, self._oom_seen)
        if not self._oom_left or now - self._oom_at > _FRESH:
            return reason
        self._oom_left -= 1
        return Reason(Cause.OUT_OF_MEMORY)


@dataclass(slots=True)
class History:
    """The past of one supervisor. Times are seconds since the epoch, but `started` is monotonic.

    `why` of the last roll and `reason` of the last exits are `Reason`s; `why` of a refused roll is a text.
    """

    started: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    last_roll: dict[str, Any] | None = None
    last_exits: list[dict[str, Any]] = field(default_factory=list)
    last_hangs: list[dict[str, Any]] = field(default_factory=list)
    exits: Exits = field(default_factory=lambda: Exits(resources.oom_kills))
    surge: dict[str, Any] | None = None  # how the last roll or recycle replaces workers: surge.Manner
    rolls: dict[str, int] = field(default_factory=lambda: {"rolled": 0, "failed": 0})

    def refused(self, generation: int, why: str) -> None:
        """Keep the outcome of a roll that did not begin."""
        self.rolls["failed"] += 1
        facts = {"generation": generation, "why": why, "rolled_back": True}
        self.last_roll = {"outcome": "roll refused", "time": time.time(), **facts}

    def note(self, kind: Notice, data: dict[str, Any]) -> None:
        """Keep the last roll's outcome and the last 20 exits; count both."""
        kind_of_exit = self.exits.note(kind, data)
        if kind in {Notice.ROLLED, Notice.ROLL_FAILED}:
            self.rolls["rolled" if kind is Notice.ROLLED else "failed"] += 1
            self.last_roll = {"outcome": str(kind), "time": time.time(), "surge": self.surge, **data}
        elif kind is Notice.SERVING and data["generation"] > 1:  # live reload: no boot at first
            self.last_roll = {"outcome": str(Notice.ROLLED), "time": time.time(), **data}
        elif kind is Notice.BACKOFF and math.isinf(data["seconds"]):
            facts = {"why": data["why"], "rolled_back": False}
            self.last_roll = {"outcome": str(Notice.ROLL_FAILED), "time": time.time(), **facts}
        elif kind is Notice.EXITED:
            facts = {"slot": data["slot"], "state": str(data["state"]), "reason": data["why"]}
            facts["kind"] = kind_of_exit
            self.last_exits.append({**facts, "failed": data["failed"], "time": time.time()})
            del self.last_exits[:-20]
