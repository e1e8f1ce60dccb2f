"""The lifecycle's values: policy, worker, failures, fleet. All are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from mooring.supervisor.lifecycle.cause import Cause, Reason
from mooring.supervisor.lifecycle.table import WorkerState

__all__ = ["Failures", "Fleet", "FleetState", "Outcome", "Policy", "StopReason", "Worker", "new_fleet"]


class FleetState(StrEnum):
    """Where the fleet as a whole stands: booting -> serving <-> rolling; any -> stopping -> stopped."""

    BOOTING = "booting"
    SERVING = "serving"
    ROLLING = "rolling"
    STOPPING = "stopping"
    STOPPED = "stopped"


class StopReason(StrEnum):
    """Why the fleet stopped."""

    ASKED = "asked"
    BOOT_FAILED = "boot failed"


@dataclass(frozen=True, slots=True)
class Policy:
    """The lifecycle's times (in seconds) and limits. Raises ValueError, which names every bad value."""

    boot_timeout: float = 60.0
    """From spawn to ready."""
    heartbeat_timeout: float | None = 30.0
    """The longest silence of a ready worker. None or 0: heartbeats are not watched."""
    grace: float = 8.0
    """How long a drain may take."""
    reap: float = 1.0
    """How long a kill may take before the worker is killed again."""
    stable_after: float = 10.0
    """How long a worker must be ready before its slot's failures are forgotten."""
    backoff_initial: float = 0.5
    """The wait after a slot's first failure; each further failure doubles it."""
    backoff_max: float = 30.0
    """The longest wait after a failure."""
    jitter: float = 0.0
    """The share of each wait, 0 to 1, that varies, so that slots and instances don't retry in step."""
    jitter_seed: float = 0.0
    """Where this instance starts in the sequence of jitters: any number, drawn once by the shell."""
    surge: int = 1
    """How many processes there may be above the size, in any state, before a measurement; at least 1."""
    max_draining_generations: int = 1
    """No roll begins while this many generations, other than the wanted one, drain; at least 1."""
    drain_delay: float = 0.0
    """At a stop, how long ready workers go on accepting before they are drained."""
    boot_failures_fatal: bool = True
    """True: a boot failure while booting stops the fleet. False (dev): its slot waits for the next roll."""
    overlap: bool = True
    """True: a roll's new worker is ready before the old one drains. False (dev): the old one ends first."""
    edition: int = 0
    """The number of the settings that this policy was made from. Only the shell uses it."""

    def __post_init__(self) -> None:
        positive = ("boot_timeout", "reap", "stable_after", "backoff_initial", "backoff_max")
        least_one = ("surge", "max_draining_generations")
        wrong = [f"{name} must be above 0" for name in positive if not getattr(self, name) > 0]
        wrong += [f"{n} must be 0 or more" for n in ("grace", "drain_delay") if not getattr(self, n) >= 0]
        wrong += [f"{name} must be at least 1" for name in least_one if getattr(self, name) < 1]
        if not (self.heartbeat_timeout or 0) >= 0:
            wrong.append("heartbeat_timeout must be 0 or more")
        if not 0 <= self.jitter < 1:
            wrong.append("jitter must be at least 0 and below 1")
        if wrong:
            raise ValueError("; ".join(wrong))

    def longest_wait(self, failures: int) -> float:
        """Seconds, as `backoff` without the jitter, which only shortens the wait."""
        return min(self.backoff_max, self.backoff_initial * 2.0 ** min(failures - 1, 32))

    def backoff(self, failures: int, serial: int) -> float:
        """Seconds to wait after the given number of failures in a row, the last one of this worker."""
        delay = self.longest_wait(failures)
        # Multiples of the golden ratio spread evenly: neighbours differ, without randomness.
        return delay * (1 - self.jitter * ((self.jitter_seed + serial * 0.6180339887498949) % 1))


@dataclass(frozen=True, slots=True)
class Worker:
    """One process, from the decision to spawn it until its exit was seen."""

    serial: int
    slot: int
    generation: int
    state: WorkerState
    since: float
    """When it entered its state."""
    deadline: float | None
    """When it is killed (again). None only while it is ready and heartbeats are not watched."""
    spawned_at: float
    policy: Policy
    """The policy at its spawn, whose times it keeps after a later roll."""
    ready_at: float | None = None
    stale: bool = False
    """Its recycling is due: it serves until its replacement is ready."""
    due: str = ""
    """Why its recycling is due."""
    ordered: Cause | None = None
    """Why it is draining or killed."""


@dataclass(frozen=True, slots=True)
class Failures:
    """A slot's failures in a row."""

    count: int
    first_at: float
    last_at: float
    retry_at: float | None
    """No spawn before this time; None: it has passed; infinity: not before the next roll."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Why the fleet stops, and with which exit code."""

    reason: StopReason
    exit_code: int
    why: Reason
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything the lifecycle knows at one moment. Made by `new_fleet`, changed by `step` alone."""

    policy: Policy
    size: int
    state: FleetState = FleetState.BOOTING
    generation: int = 1
    """The wanted generation."""
    previous: int | None = None
    """The generation that a failed roll goes back to; set only while rolling with overlap."""
    previous_policy: Policy | None = None
    """The policy of `previous`."""
    proven: bool = False
    """A worker of the wanted generation has been ready: the roll does not go back any more."""
    queued: bool = False
    """One more roll waits to begin."""
    surge: int = 1
    """How many processes there may be above the size: the policy's, or as measured for a roll or recycle."""
    measured: bool = False
    """The surge was measured, and nothing has happened since that changes it: replacing may begin."""
    measuring: bool = False
    """A measurement was asked for, and its result is awaited."""
    next_policy: Policy | None = None
    """The policy that the next roll takes up; None: it keeps the present one."""
    workers: Mapping[int, Worker] = field(default_factory=lambda: MappingProxyType({}))
    """By serial, which is never used twice."""
    failures: Mapping[int, Failures] = field(default_factory=lambda: MappingProxyType({}))
    """By slot; a slot without failures is absent."""
    next_serial: int = 0
    next_generation: int = 2
    drain_at: float | None = None
    """While stopping: when the ready workers are drained; None afterwards."""
    stop_deadline: float | None = None
    """Once stopping: when every drain must have ended."""
    outcome: Outcome | None = None
    """Set once stopping begins."""

    @property
    def takes_nothing_new(self) -> bool:
        """Whether the fleet stops, and no worker accepts any more; one that starts is told to end."""
        if self.state not in (FleetState.STOPPING, FleetState.STOPPED):
            return False
        live = (WorkerState.STARTING, WorkerState.READY)
        return not any(worker.state in live for worker in self.workers.values())

    @property
    def in_force(self) -> Policy:
        """The policy for the fleet as a whole: during a roll the previous one, until `proven`."""
        return self.policy if self.proven or self.previous_policy is None else self.previous_policy


def new_fleet(policy: Policy, size: int = 1) -> Fleet:
    """Return a fleet with nothing running: the first `step` (a `Tick`) spawns `size` workers."""
    return Fleet(policy=policy, size=max(1, size), surge=policy.surge)
