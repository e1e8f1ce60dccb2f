"""What /status tells of the past: the last roll, exits and hangs. Fed with the lifecycle's notices."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from mooring import resources
from mooring.supervisor.exits import Exits
from mooring.supervisor.lifecycle import Notice


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
