"""What a client of uvicorn may do, and which connections go when there are too many.

One `Limits` belongs to one worker; the protocols refer to it by a class attribute.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mooring.engines.common.connections import unread
from mooring.engines.common.full import Full

if TYPE_CHECKING:
    from mooring.engines import Serving

_BATCH = 100  # of so many connections, one is chosen in each search for the oldest


class Limits(NamedTuple):
    """The settings of the same names, where a refusal is told (`Serving.refused`), and how many there are."""

    head_timeout: float = 20.0
    body_timeout: float = 60.0
    send_timeout: float = 60.0
    max_head: int = 64 * 1024
    max_fields: int = 100
    max_body: int = 0
    max_connections: int = 0
    refused: Callable[[str, object, str], None] = lambda _reason, _peer, _detail: None
    full: Callable[[int], None] = lambda _count: None


def of(serving: Serving) -> Limits:
    """The limits of a worker."""
    given = serving.plan.settings
    return Limits(
        given.head_timeout,
        given.body_timeout,
        given.send_timeout,
        given.max_head or 2**62,
        given.max_fields,
        given.max_body,
        serving.plan.max_connections,
        serving.refused,
        Full(serving),
    )


class Crowd:
    """Makes room for a new connection where there are too many: the oldest idle or silent one is closed."""

    def __init__(self) -> None:
        self._oldest: deque[Any] = deque()

    def enter(self, newcomer: Any, connections: set[Any], limits: Limits) -> bool:
        """Whether the new connection may stay; `connections` has it already."""
        limits.full(len(connections))
        victim = self._next() or self._search(newcomer, connections)
        if victim is None:
            limits.refused("connections", newcomer.client, "all are busy")
            return False
        limits.refused("connections", victim.client, "the oldest idle one")
        victim.transport.close()
        return True

    def _next(self) -> Any:
        while self._oldest:
            victim, before = self._oldest.popleft()
            if victim.idle_since() == before and not _asks(victim):
                return victim
        return None

    def _search(self, newcomer: Any, connections: set[Any]) -> Any:
        """All are looked at, which takes long: so some are chosen at once."""
        found = [
            (since, number, each)
            for number, each in enumerate(connections)
            if each is not newcomer and (since := each.idle_since()) is not None
        ]
        found.sort(key=lambda item: item[:2])
        waiting = ((each, since) for since, _, each in found if not _asks(each))
        self._oldest.extend(itertools.islice(waiting, 1 + len(found) // _BATCH))
        return self._next()


def _asks(connection: Any) -> bool:
    """Whether a request may just have come."""
    sock = connection.transport.get_extra_info("socket")
    return sock is not None and unread(sock.fileno())
