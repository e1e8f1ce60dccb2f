"""The interface between the supervisor's loop and everything that it runs beside the workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mooring.supervisor.lifecycle import Notice
from mooring.system.process import Reaped


class Part(Protocol):
    """Something that the loop wakes when it is due, and tells what happens.

    Each method does nothing by default. A part in a lower package cannot import this class: it implements all
    the methods, without a base class.
    """

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds); None: no time is set."""
        return None

    def expire(self) -> None:
        """Do what is due; called after every wait."""
        return

    def told(self, kind: Notice, data: Mapping[str, Any], /) -> None:
        """React to a notice of the lifecycle."""
        return

    def exited(self, ended: Reaped, /) -> None:
        """React to the end of a process that is not a worker; it may be one of this part's."""
        return

    def busy(self) -> bool:
        """Whether this part has something to finish before the supervisor may end."""
        return False
