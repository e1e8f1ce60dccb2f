"""Why a worker ended, is drained or killed, or could not be started: a value for code, a text for people.

Code that acts on a cause compares the value. The text is for the log, /status and the last line on stderr:
no code depends on its wording.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["TEXTS", "Cause", "Reason"]


class Cause(Enum):
    """Why. Not a StrEnum: a cause never equals a text, and mypy refuses to compare them."""

    # Its process has ended:
    CLEAN_EXIT = auto()
    """with exit code 0"""
    EXIT_CODE = auto()
    """with another exit code"""
    TERMINATED = auto()
    """by TERM, before it could take that as an order to drain"""
    SIGNAL = auto()
    """by another signal"""
    OUT_OF_MEMORY = auto()
    """killed by the kernel for its memory"""
    ENDED_EARLY = auto()
    """before it was ready, in any of these ways except OUT_OF_MEMORY; the detail says how"""
    FAILED = auto()
    """it reported why; the detail is its message, which may hold any text of the application"""

    # The worker's process was never started:
    NOT_SPAWNED = auto()
    """the detail is the text of the system's error, made from its number"""

    # The supervisor kills it:
    BOOT_DEADLINE = auto()
    HEARTBEAT_DEADLINE = auto()
    GRACE_DEADLINE = auto()
    STOP_NOW = auto()

    # The supervisor drains it:
    RECYCLED = auto()
    SUPERSEDED = auto()
    BEYOND_SIZE = auto()
    STOPPING = auto()

    # The fleet stops, besides by STOP_NOW and by a worker that could not boot:
    STOP_ASKED = auto()


TEXTS: dict[Cause, str] = {
    Cause.CLEAN_EXIT: "{}",
    Cause.EXIT_CODE: "{}",
    Cause.TERMINATED: "{}",
    Cause.SIGNAL: "{}",
    Cause.OUT_OF_MEMORY: "killed by the kernel: out of memory",
    Cause.ENDED_EARLY: "the application ended its worker before it was ready: {}",
    Cause.FAILED: "{}",
    Cause.NOT_SPAWNED: "could not be spawned: {}",
    Cause.BOOT_DEADLINE: "boot deadline exceeded",
    Cause.HEARTBEAT_DEADLINE: "heartbeat deadline exceeded",
    Cause.GRACE_DEADLINE: "grace deadline exceeded",
    Cause.STOP_NOW: "told to stop now",
    Cause.RECYCLED: "recycled",
    Cause.SUPERSEDED: "superseded",
    Cause.BEYOND_SIZE: "beyond the size",
    Cause.STOPPING: "stopping",
    Cause.STOP_ASKED: "asked to stop",
}
"""The texts for people; `{}` is the reason's detail. system/process.describe says how a process ended."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A cause and its detail (free text). `str()` of it is the text for people."""

    cause: Cause
    detail: str = ""

    def __str__(self) -> str:
        return TEXTS[self.cause].format(self.detail)
