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
    """A `Spawn` could not be executed: there is no such process (fork gave EAGAIN, say)."""

    serial: int
    detail: str = "no process"
    """The system's error."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker says that it serves."""

    serial: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker has shown that it is alive."""

    serial: int


@dataclass(frozen=True, slots=True)
class Beats:
    """These workers have: at once, since each step also expires whoever was not named yet."""

    serials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker's process was reaped."""

    serial: int
    reason: Reason = _EXITED
    exit_code: int | None = None
    """One of mooring's documented codes, where the worker left with one."""
    fatal: bool = False
    """The worker said that the application can't boot; then `exit_code` becomes ours, while booting."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Want so many workers more (TTIN: 1) or fewer (TTOU: -1); never below one."""

    delta: int


@dataclass(frozen=True, slots=True)
class SetSize:
    """Want this many workers; never below one."""

    size: int


@dataclass(frozen=True, slots=True)
class Roll:
    """Replace the generation by the next (HUP).

    The new generation takes up `policy`, where there is one; it may differ from the present one in its times
    alone. Asked several times before a roll begins, the newest one counts.
    """

    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class Surge:
    """The answer to `Measure`: so many processes may there be above the size, 0 or more, for now."""

    width: int


@dataclass(frozen=True, slots=True)
class RecycleDue:
    """Replace this one worker, once it can be spared."""

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
    """What an `Announce` is about, and the keys of its data. `why` is a `Reason`, but of RECYCLING a text."""

    SPAWNED = "spawned"
    """serial, slot, generation"""
    READY = "ready"
    """serial, slot, generation, seconds: from the spawn"""
    SERVING = "serving"
    """generation, size: booting is over"""
    ROLLING = "rolling"
    """generation, previous: a roll begins"""
    ROLL_QUEUED = "roll queued"
    """generation: the wanted one for now"""
    ROLLED = "rolled"
    """generation: nothing older serves"""
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
    """serial, slot, generation, state: the one it left from, why, failed: whether it should not have,
    ordered: the cause of its drain, or of the kill that came first; None where it was told neither"""
    BACKOFF = "backoff"
    """slot, seconds: infinite until the next roll, failures: in a row, why"""
    BOOT_FAILED = "boot failed"
    """serial, slot, why, exit_code"""
    STOPPING = "stopping"
    """why, seconds: at most, exit_code. Readiness goes off now"""
    STOPPED = "stopped"
    """why, exit_code"""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process for this worker; it answers with `Ready`, `Exited` or `SpawnFailed`."""

    serial: int
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell the worker to finish what is in flight until the deadline (on the clock of `now`), and leave."""

    serial: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the worker's process group."""

    serial: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Measure:
    """Find out how many more fit the memory, and answer with `Surge`: replacing waits for it."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Something for the log and for /status to say; `kind` names the keys of `data`."""

    kind: Notice
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Exit:
    """Nothing is left: leave with this code. The last action there is."""

    code: int


Action = Spawn | Drain | Kill | Measure | Announce | Exit
