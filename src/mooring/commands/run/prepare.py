"""From settings to the plan's first stage: at the start, at each roll, and for `mooring check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mooring import resources
from mooring.application import discovery
from mooring.instrument.otel import variables
from mooring.plan import tls
from mooring.plan.interface import intended
from mooring.plan.plan import Plan
from mooring.plan.plan import plan as make_plan
from mooring.plan.server_config import find
from mooring.settings.resolve import Resolved
from mooring.system.signals import SignalQueue


def prepare(resolved: Resolved, environ: Mapping[str, str], signals: SignalQueue | None = None) -> Plan:
    """The plan's first stage, all that it needs read and checked. Raises Stopped as server_config.find."""
    wanted = intended(resolved)
    target = discovery.find(resolved, wanted)  # first: without an application nothing is evaluated
    conf = find.find(resolved, environ, signals)
    if (by_conf := intended(resolved, conf)) != wanted:
        target = discovery.find(resolved, by_conf)
    found = resources.read(environ=environ)
    plan = make_plan(resolved, found, target, conf)
    if plan.tls:
        tls.look(plan.settings)
    return dataclasses.replace(plan, warnings=(*plan.warnings, *variables.warnings(environ)))
