"""One line each for what the imported application relies on and does not get as the plan is: several workers.

What shows only when it is used is said there: instrument/handshake.py, worker/idle_loops.py.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

from mooring.application.model import Application
from mooring.metrics.multiprocess.folder import VARIABLE
from mooring.worker.assignment import Assignment
from mooring.worker.setup import several_workers

_SHOWN = 5  # names in a line


def give(assignment: Assignment, application: Application) -> None:
    """Call this once for an instance, after the import and before objects are frozen for the collector."""
    if not several_workers(assignment):
        return
    workers = assignment.plan.workers
    log = assignment.context.log
    if _has_polling():
        ways = "set MOORING_WORKERS=1"
        if application.interface == "asgi":
            ways += ", or have both sides use WebSockets alone (transports=['websocket'])"
        log.warning(
            "socket.io: long polling fails unless each request of a session reaches the same worker, and "
            f"there are {workers} workers: {ways}"
        )
    lost = sorted(set(_unmerged())) if os.environ.get(VARIABLE) else []
    if lost:
        names = ", ".join(lost[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
        log.info(
            f"prometheus_client: {names}: on no page that adds up several workers, where Info, Enum, "
            "set_function and custom collectors are lost: MOORING_WORKERS=1 or MOORING_APP_METRICS=false "
            "keeps them"
        )


def _has_polling() -> bool:
    """Whether there is a server of socket.io or engine.io that allows long polling."""
    module: Any = sys.modules.get("engineio.base_server")
    base = getattr(module, "BaseServer", None)
    if base is None:
        return False
    found = [each for each in gc.get_objects() if issubclass(type(each), base)]
    return any("polling" in getattr(each, "transports", ()) for each in found)


def _unmerged() -> Iterator[str]:
    """The names of metrics that prometheus_client's multi-process mode does not have."""
    client: Any = sys.modules.get("prometheus_client")
    try:
        found = dict(client.REGISTRY._collector_to_names)
    except (AttributeError, TypeError):
        return
    for collector, names in found.items():
        kind = type(collector)
        if kind.__module__ == "prometheus_client.metrics":
            function = "_child_samples" in getattr(collector, "__dict__", ())  # set_function() puts it there
            if function or kind.__name__ in ("Info", "Enum"):
                yield str(getattr(collector, "_name", kind.__name__))
        elif not kind.__module__.startswith("prometheus_client."):
            yield next(iter(names), kind.__name__)
