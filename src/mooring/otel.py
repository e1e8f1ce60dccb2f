"""OpenTelemetry in a worker: started where the variables ask for it, not even imported where they do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from mooring import otelvars

if TYPE_CHECKING:
    from mooring.engines import Application
    from mooring.logs import Files, Log
    from mooring.plan import Plan


def start(plan: Plan, log: Log, files: Files) -> Callable[[Application], Application]:
    """Set OpenTelemetry up in this process, if asked: after the last fork, before the application's import.

    Returns what puts the imported application into a server span for each request; where nothing is to be
    done it returns the application itself. Raises nothing: without telemetry, serving goes on.
    """
    if not otelvars.asked(os.environ) or not otelvars.installed():
        return lambda application: application
    from mooring import otelsdk

    return otelsdk.start(plan, log, files)


def trace_ids() -> Callable[[], str] | None:
    """A function that tells the present request's trace id (32 hex digits; "" where there is none).

    None where OpenTelemetry is off. To be called after `start`; the function, inside the application's call.
    """
    sdk = sys.modules.get("mooring.otelsdk")
    return sdk.trace_id if sdk is not None and sdk.is_on() else None
