"""Tells the supervisor which children of this worker lead process groups of their own: they end with it.

In an orderly end the worker ends them itself. Where it is killed, they have another parent before anybody
looks: so a thread looks for them while it lives. Where the supervisor is killed, the kernel kills them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mooring.system import lifeline, offspring
from mooring.system.unpatched import native

_LOOK = 0.5  # seconds between two looks
_MOST = 100  # children in a message, which stays below PIPE_BUF so


def watch(tell: Callable[[list[int]], object]) -> None:
    """Look at intervals for the rest of the process; `tell` is called with the pids whenever they change."""
    native("_thread", "start_new_thread")(_watch, (tell, native("time", "sleep")))


def _watch(tell: Callable[[list[int]], object], sleep: Callable[[float], None]) -> None:
    known: dict[int, int] = {}  # by group, the descriptor of its lifeline
    while True:
        sleep(_LOOK)
        found = offspring.leaders()[:_MOST]
        if set(found) == set(known):
            continue
        with suppress(OSError):  # the supervisor is gone
            tell(found)
        for group in set(known) - set(found):
            lifeline.drop(known.pop(group))
        for group in set(found) - set(known):
            known[group] = lifeline.also(group)
