"""The worker's state machine, as a table. Every change of a worker's state is looked up here.

The rules:
- A state and a trigger without a row here mean that the event came too late: it is ignored.
- A worker is known from the decision to spawn it until its exit was seen; `gone` means no longer known.
- No transition goes back: a draining worker is never ready again, a killed one stays killed until it is gone.
- Every state has a deadline: boot, heartbeat (where it is watched), grace, reap.

The diagram and the table in docs/lifecycle.md are generated from here; a test holds them equal.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["NEXT", "TABLE", "Transition", "Trigger", "WorkerState", "as_markdown", "as_mermaid"]


class WorkerState(StrEnum):
    """The state of a worker."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    KILLED = "killed"


class Trigger(StrEnum):
    """What makes a worker change its state."""

    WANTED = "wanted"
    READY = "ready"
    BEAT = "beat"
    RECYCLE_DUE = "recycle due"
    SUPERSEDED = "superseded"
    NO_ROOM = "no room beside it"
    BEYOND_SIZE = "beyond the size"
    STOPPING = "stopping"
    STOP_NOW = "stop now"
    DEADLINE = "deadline passed"
    SPAWN_FAILED = "spawn failed"
    EXITED = "exited"


class Transition(NamedTuple):
    """One line of the table. None is the state of a worker that does not exist yet, or no longer."""

    state: WorkerState | None
    trigger: Trigger
    next: WorkerState | None
    effect: str


_S = WorkerState

_T = Transition
# fmt: off
TABLE: tuple[Transition, ...] = (
    _T(None,         Trigger.WANTED,       _S.STARTING, "spawn; boot deadline"),
    _T(_S.STARTING,  Trigger.READY,        _S.READY,    "heartbeat deadline; the slot's older is superseded"),
    _T(_S.STARTING,  Trigger.SUPERSEDED,   _S.DRAINING, "drain; grace deadline"),
    _T(_S.STARTING,  Trigger.BEYOND_SIZE,  _S.DRAINING, "drain; grace deadline"),
    _T(_S.STARTING,  Trigger.STOPPING,     _S.DRAINING, "drain; the stop's deadline"),
    _T(_S.STARTING,  Trigger.STOP_NOW,     _S.KILLED,   "kill; reap deadline"),
    _T(_S.STARTING,  Trigger.DEADLINE,     _S.KILLED,   "kill; reap deadline; a boot failure"),
    _T(_S.STARTING,  Trigger.SPAWN_FAILED, None,        "a failure, though not of the application"),
    _T(_S.STARTING,  Trigger.EXITED,       None,        "a boot failure"),
    _T(_S.READY,     Trigger.BEAT,         _S.READY,    "heartbeat deadline renewed"),
    _T(_S.READY,     Trigger.RECYCLE_DUE,  _S.READY,    "stale: its replacement must be ready first"),
    _T(_S.READY,     Trigger.SUPERSEDED,   _S.DRAINING, "drain; grace deadline"),
    _T(_S.READY,     Trigger.NO_ROOM,      _S.DRAINING, "drain; grace deadline; replaced afterwards"),
    _T(_S.READY,     Trigger.BEYOND_SIZE,  _S.DRAINING, "drain; grace deadline"),
    _T(_S.READY,     Trigger.STOPPING,     _S.DRAINING, "drain; the stop's deadline"),
    _T(_S.READY,     Trigger.STOP_NOW,     _S.KILLED,   "kill; reap deadline"),
    _T(_S.READY,     Trigger.DEADLINE,     _S.KILLED,   "kill; reap deadline; a failure"),
    _T(_S.READY,     Trigger.EXITED,       None,        "a failure"),
    _T(_S.DRAINING,  Trigger.STOP_NOW,     _S.KILLED,   "kill; reap deadline"),
    _T(_S.DRAINING,  Trigger.DEADLINE,     _S.KILLED,   "kill; reap deadline"),
    _T(_S.DRAINING,  Trigger.SPAWN_FAILED, None,        ""),
    _T(_S.DRAINING,  Trigger.EXITED,       None,        ""),
    _T(_S.KILLED,    Trigger.DEADLINE,     _S.KILLED,   "kill again; reap deadline"),
    _T(_S.KILLED,    Trigger.SPAWN_FAILED, None,        ""),
    _T(_S.KILLED,    Trigger.EXITED,       None,        ""),
)
# fmt: on

NEXT: dict[tuple[WorkerState | None, Trigger], WorkerState | None] = {
    (r.state, r.trigger): r.next for r in TABLE
}


def as_markdown() -> str:
    """Return the table for the documentation."""
    lines = ["| worker state | trigger | next state | effect |", "|---|---|---|---|"]
    lines += [f"| {r.state or 'none'} | {r.trigger} | {r.next or 'gone'} | {r.effect} |" for r in TABLE]
    return "\n".join(lines)


def as_mermaid() -> str:
    """Return the state diagram for the documentation: one arrow for each pair of states."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for row in TABLE:
        arrows.setdefault((row.state or "[*]", row.next or "[*]"), []).append(row.trigger)
    lines = [f"    {before} --> {after}: {', '.join(found)}" for (before, after), found in arrows.items()]
    return "\n".join(["stateDiagram-v2", *lines])
