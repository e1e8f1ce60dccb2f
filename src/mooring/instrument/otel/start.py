"""OpenTelemetry in a worker: started if the variables ask for it, else not even imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mooring.instrument.otel import variables

if TYPE_CHECKING:
    from mooring.application.model import Application
    from mooring.logs.log import Log, LogFiles
    from mooring.plan.plan import Plan


def start(plan: Plan, log: Log, files: LogFiles) -> Callable[[Application], Application]:
    """Set up OpenTelemetry in this process, if asked. Call it after the last fork, before the import.

    Returns a function that wraps the imported application in a server span for each request, or returns it
    unchanged if there is nothing to do. Raises nothing: without telemetry, serving goes on.
    """
    if not variables.asked(os.environ) or not variables.installed():
        return lambda application: application
    from mooring.instrument.otel import sdk

    return sdk.start(plan, log, files)
