"""What a worker, or a template of workers, is given by the supervisor before it is forked."""

from __future__ import annotations

from typing import NamedTuple

from mooring.application.model import Application
from mooring.plan.plan import Plan
from mooring.system.doors import Doors
from mooring.worker.context import Context
from mooring.worker.seat import Seat


class Assignment(NamedTuple):
    """What a worker is given: the plan, its listeners, a descriptor for its report, its seat on the
    scoreboard, and the context that all workers share.

    `seat` is None where nothing will be served. `application` is set in a worker that a template
    (template.py) has forked: the template has imported it and done the set-up.
    """

    plan: Plan
    doors: Doors
    report: int
    seat: Seat | None
    context: Context
    application: Application | None = None
