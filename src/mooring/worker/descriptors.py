"""Warns when a worker has no descriptor left. A thread checks for it, since nothing else reports it.

What happens to new connections depends on the engine: an asyncio loop leaves them in the listen queue, uvloop
resets them without a log line (libuv closes them).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from mooring.system.unpatched import native

if TYPE_CHECKING:
    from mooring.logs.log import Log

_LOOK, _QUIET = 0.5, 60.0  # seconds between two looks; between two warnings


def watch(log: Log) -> None:
    """Check at intervals for the rest of the process, and warn at most once a minute."""
    native("_thread", "start_new_thread")(_watch, (log, native("time", "sleep")))


def exhausted() -> bool:
    """Whether this process, or the system, has no descriptor to give."""
    try:
        os.close(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in {errno.EMFILE, errno.ENFILE}
    return False


def _watch(log: Log, sleep: Callable[[float], None]) -> None:
    said = -_QUIET
    while True:
        sleep(_LOOK)
        if exhausted() and monotonic() - said >= _QUIET:
            said = monotonic()
            most = os.sysconf("SC_OPEN_MAX")
            log.warning(
                f"this worker has no descriptor left (its limit is {most}): new connections wait, or are "
                "refused; raise the limit (ulimit -n)"
            )
