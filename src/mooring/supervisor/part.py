"""What a supervisor keeps beside its workers, as its loop sees it: each is a `Part`, added once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mooring.supervisor.lifecycle import Notice
from mooring.system.process import Reaped


class Part(Protocol):
    """Whom the loop wakes in time, and tells what happens.

    Each method does nothing unless a part has something to do there. Parts of packages below this one have
    all the methods, and no base.
    """

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds); None: not before something happens."""
        return None

    def expire(self) -> None:
        """Do what is due; called after every wait."""
        return

    def told(self, kind: Notice, data: Mapping[str, Any], /) -> None:
        """What the lifecycle has announced."""
        return

    def exited(self, ended: Reaped, /) -> None:
        """A process that is no worker has been reaped: one of this part's, perhaps."""
        return

    def busy(self) -> bool:
        """Whether it has something to finish before the supervisor may end."""
        return False
