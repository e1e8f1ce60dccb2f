"""OpenTelemetry in a worker: started where the variables ask for it, not even imported where they do not."""

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
    """Set OpenTelemetry up in this process, if asked: after the last fork, before the application's import.

    Returns what puts the imported application into a server span for each request; where nothing is to be
    done it returns the application itself. Raises nothing: without telemetry, serving goes on.
    """
    if not variables.asked(os.environ) or not variables.installed():
        return lambda application: application
    from mooring.instrument.otel import sdk

    return sdk.start(plan, log, files)
