"""What others do in the loop of the supervisor: whose time it keeps, whom it tells of what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mooring.plan.plan import Plan
from mooring.supervisor.lifecycle import Cause, Notice
from mooring.system.process import Reaped


class Timer(Protocol):
    """Somebody whose time the loop keeps."""

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds); None: not before something happens."""

    def expire(self) -> None:
        """Do what is due; called after every wait."""


class Hooks:
    """Nobody at first."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []  # besides the lifecycle's
        self.on_stranger: list[Callable[[Reaped], None]] = []  # a process that is no worker has ended
        self.on_notice: list[Callable[[Notice, Mapping[str, Any]], None]] = []
        self.held_by: list[Callable[[], bool]] = []  # whoever has something to finish before the end
        self.on_kill: Callable[[int, Cause], bool] = lambda _serial, _cause: False  # whether it is seen to
        self.on_dying: Callable[[int], None] = lambda _pid: None  # of any child, before it is reaped
        self.on_measure: Callable[[], int] = lambda: 1  # how many workers above the size there may be
        self.on_told_gone: Callable[[], None] = lambda: None  # a worker of gunicorn's arbiter has ended
        self.on_reopen: Callable[[], None] = lambda: None
        self.on_fit: Callable[[Plan], None] = lambda _plan: None
