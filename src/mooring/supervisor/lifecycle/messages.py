"""What goes into a step (events) and what comes out of it (actions)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mooring.supervisor.lifecycle.cause import Cause, Reason
from mooring.supervisor.lifecycle.model import Policy

__all__ = [
    "Action",
    "Announce",
    "Beat",
    "Beats",
    "Drain",
    "Event",
    "Exit",
    "Exited",
    "Kill",
    "Measure",
    "Notice",
    "Ready",
    "RecycleDue",
    "Resize",
    "Roll",
    "SetSize",
    "Spawn",
    "SpawnFailed",
    "Stop",
    "StopNow",
    "Surge",
    "Tick",
]


_EXITED = Reason(Cause.EXIT_CODE, "exited")


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing but time has passed. The first one starts the fleet."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """A `Spawn` could not be executed: the worker has no process (fork raised EAGAIN, for example)."""

    serial: int
    errno: int
    """The number of the system's error."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has reported that it serves."""

    serial: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker has shown that it is alive."""

    serial: int


@dataclass(frozen=True, slots=True)
class Beats:
    """These workers have shown that they are alive. One event for all: each step also expires deadlines."""

    serials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker's process was reaped."""

    serial: int
    reason: Reason = _EXITED
    exit_code: int | None = None
    """One of mooring's documented exit codes, where the worker reported one."""
    fatal: bool = False
    """The worker reported that the application cannot boot. While booting, mooring exits with `exit_code`."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Want `delta` workers more (TTIN: 1; TTOU: -1); never below one."""

    delta: int


@dataclass(frozen=True, slots=True)
class SetSize:
    """Want this many workers; never below one."""

    size: int


@dataclass(frozen=True, slots=True)
class Roll:
    """Replace the generation by the next (HUP).

    The new generation takes up `policy`, where it is set; only its times and its edition may differ from the
    present policy. Of several policies that come before a roll begins, the newest counts.
    """

    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class Surge:
    """The answer to `Measure`: how many processes there may be above the size for now, 0 or more."""

    width: int


@dataclass(frozen=True, slots=True)
class RecycleDue:
    """Replace this worker, as soon as the fleet can spare it."""

    serial: int
    why: str = "due"


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain and stop (TERM, INT). A second one changes nothing."""


@dataclass(frozen=True, slots=True)
class StopNow:
    """Kill everything at once (QUIT, the second INT)."""


Event = (
    Tick
    | SpawnFailed
    | Ready
    | Beat
    | Beats
    | Exited
    | Resize
    | SetSize
    | Roll
    | Surge
    | RecycleDue
    | Stop
    | StopNow
)


class Notice(StrEnum):
    """What an `Announce` is about, with the keys of its data. `why` is a `Reason`; of RECYCLING, a text."""

    SPAWNED = "spawned"
    """serial, slot, generation"""
    READY = "ready"
    """serial, slot, generation, seconds: from the spawn"""
    SERVING = "serving"
    """generation, size: booting is over"""
    ROLLING = "rolling"
    """generation, previous: a roll begins"""
    ROLL_QUEUED = "roll queued"
    """generation: the one wanted now"""
    ROLLED = "rolled"
    """generation: the only one that serves now"""
    ROLL_FAILED = "roll failed"
    """failed, generation: the one wanted now, why, rolled_back: whether the older one still serves"""
    RECYCLING = "recycling"
    """serial, slot, why: a replacement is being started for this worker"""
    RESIZED = "resized"
    """size, previous"""
    DRAINING = "draining"
    """serial, slot, generation, why, seconds: at most"""
    DEADLINE = "deadline exceeded"
    """serial, slot, deadline: boot, heartbeat, grace or reap"""
    EXITED = "exited"
    """serial, slot, generation, state: its last one, why, failed: whether it should not have ended,
    ordered: the cause of its first kill, else of its drain; None where it was neither killed nor drained"""
    BACKOFF = "backoff"
    """slot, seconds: infinity means until the next roll, failures: in a row, why"""
    BOOT_FAILED = "boot failed"
    """serial, slot, why, exit_code"""
    STOPPING = "stopping"
    """why, seconds: at most, exit_code. Readiness goes off now"""
    STOPPED = "stopped"
    """why, exit_code"""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process for this worker; `Ready`, `Exited` or `SpawnFailed` follows."""

    serial: int
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell the worker to finish its requests before the deadline (on the clock of `now`), and to end."""

    serial: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the worker's process group."""

    serial: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Measure:
    """Find out how many more workers fit into memory, and answer with `Surge`: replacing waits for it."""


@dataclass(frozen=True, slots=True)
class Announce:
    """A notice for the log and /status; its `kind` decides the keys of `data`."""

    kind: Notice
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Exit:
    """No worker is left: exit with this code. No action follows."""

    code: int


Action = Spawn | Drain | Kill | Measure | Announce | Exit
