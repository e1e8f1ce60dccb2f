"""What /status and /metrics tell of the past: rolls, exits with their reasons, hangs.

Fed with the lifecycle's notices. Not for what is now: admin/status.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mooring import resources
from mooring.supervisor.lifecycle import Notice, WorkerState

# The label `reason` of mooring_worker_exits_total.
REASONS = (
    "drained",  # it had finished what was in flight
    "recycled",  # likewise, once its replacement was ready
    "exit_code",  # it ended by itself
    "signal",  # somebody else killed it
    "out_of_memory",  # the kernel killed it for that
    "boot_failed",  # it ended before it was ready
    "boot_deadline",  # killed: it was not ready in time
    "heartbeat_deadline",  # killed: it gave no sign of life
    "grace_deadline",  # killed: its drain took longer than the grace period
    "stopped_now",  # killed: mooring was told to stop at once
    "spawn_failed",  # the system gave no process
)

OUT_OF_MEMORY = "killed by the kernel: out of memory"
_FRESH = 5.0  # seconds for which a count of the cgroup's explains who is found killed


class Exits:
    """Counts by reason and, of those that failed, by slot. `oom_kills` says how many the cgroup has seen."""

    def __init__(self, oom_kills: Callable[[], int | None]) -> None:
        self.by_reason = dict.fromkeys(REASONS, 0)
        self.failed: dict[int, int] = {}
        self._oom_kills = oom_kills
        self._oom_seen = oom_kills() or 0
        self._oom_left, self._oom_at = 0, 0.0  # those that no worker was found for yet, and since when
        self._recycled: set[int] = set()  # drain for that, by serial
        self._deadlines: dict[int, str] = {}  # the first that a worker has missed, by serial

    def note(self, kind: Notice, data: Mapping[str, Any]) -> str:
        """Count an exit, and return its reason; empty for any other notice."""
        if kind is Notice.DEADLINE:
            self._deadlines.setdefault(data["serial"], f"{data['deadline']}_deadline")
        if kind is Notice.DRAINING and data["why"] == "recycled":
            self._recycled.add(data["serial"])
        if kind is not Notice.EXITED:
            return ""
        reason = self._reason(data["state"], data["why"], self._deadlines.pop(data["serial"], ""))
        if data["serial"] in self._recycled:
            self._recycled.remove(data["serial"])
            reason = "recycled" if reason == "drained" else reason
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1
        if data["failed"] or reason in ("boot_deadline", "heartbeat_deadline"):
            self.failed[data["slot"]] = self.failed.get(data["slot"], 0) + 1
        return reason

    def _reason(self, state: WorkerState, why: str, deadline: str) -> str:
        if state is WorkerState.KILLED:
            return deadline if deadline in REASONS else "stopped_now"
        if why == OUT_OF_MEMORY:
            return "out_of_memory"
        if state is WorkerState.DRAINING:
            if why in ("exit code 0", "killed by SIGTERM"):  # TERM before it could take it as an order
                return "drained"
        elif state is WorkerState.STARTING:
            return "spawn_failed" if why.startswith("could not be spawned") else "boot_failed"
        return "signal" if why.startswith("killed by") else "exit_code"

    def in_words(self, why: str) -> str:
        """How a worker ended (process.describe) that nobody here has killed: the kernel for its memory, where
        the cgroup has counted one more.
        """
        if why != "killed by SIGKILL":
            return why
        count, now = self._oom_kills() or 0, time.monotonic()
        if count > self._oom_seen:
            self._oom_left, self._oom_at = count - self._oom_seen, now
        self._oom_seen = max(count, self._oom_seen)
        if not self._oom_left or now - self._oom_at > _FRESH:
            return why
        self._oom_left -= 1
        return OUT_OF_MEMORY


@dataclass(slots=True)
class History:
    """One supervisor's; the times are seconds since the epoch, `started` is monotonic."""

    started: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    last_roll: dict[str, Any] | None = None
    last_exits: list[dict[str, Any]] = field(default_factory=list)
    last_hangs: list[dict[str, Any]] = field(default_factory=list)
    exits: Exits = field(default_factory=lambda: Exits(resources.oom_kills))
    surge: dict[str, Any] | None = None  # how the last roll or recycle went, and why: see headroom
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
        elif kind is Notice.SERVING and data["generation"] > 1:  # live reload: it did not boot at first
            self.last_roll = {"outcome": str(Notice.ROLLED), "time": time.time(), **data}
        elif kind is Notice.BACKOFF and math.isinf(data["seconds"]):
            facts = {"why": data["why"], "rolled_back": False}
            self.last_roll = {"outcome": str(Notice.ROLL_FAILED), "time": time.time(), **facts}
        elif kind is Notice.EXITED:
            facts = {"slot": data["slot"], "state": str(data["state"]), "reason": data["why"]}
            facts["kind"] = kind_of_exit
            self.last_exits.append({**facts, "failed": data["failed"], "time": time.time()})
            del self.last_exits[:-20]
