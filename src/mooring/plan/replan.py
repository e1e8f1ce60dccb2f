"""The new settings and the new plan of a roll, from the configuration file as it is now.

The environment and the arguments are those of the start. A setting that only a restart can change keeps its
value, and its name is returned. Not for running this, in a process of its own: supervisor/reconfigure.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mooring.plan.plan import Plan
from mooring.settings.invocation import Invocation
from mooring.settings.resolve import Resolved, resolve
from mooring.settings.table import ROWS, TLS_SWITCH, Settings, show
from mooring.system.signals import SignalQueue

FIXED = tuple(name for name, row in ROWS.items() if row.restart is True)
_TLS = tuple(name for name, row in ROWS.items() if row.restart == TLS_SWITCH)


MakePlan = Callable[[Resolved, Mapping[str, str], SignalQueue | None], Plan]
"""Makes a plan from settings and the environment: commands/run/prepare.py."""


class Replanned(NamedTuple):
    """A plan, its settings, and the names of the settings that have changed but keep their old value."""

    plan: Plan
    resolved: Resolved
    kept: tuple[str, ...] = ()


def remake(
    invocation: Invocation, prepare: MakePlan, serving: Replanned, signals: SignalQueue | None = None
) -> Replanned:
    """Resolve the settings and plan again; fixed settings keep the values of `serving`.

    Raises the errors that a start with the new settings would raise.
    """
    resolved, kept = _resolve(invocation, serving.resolved)
    plan = prepare(resolved, invocation.environ, signals)
    plan, more = _keep_decided(plan, serving.plan)
    return Replanned(plan, resolved, tuple(dict.fromkeys((*kept, *more))))


def changed(before: Plan, after: Plan) -> tuple[str, ...]:
    """The names of the values that differ between two plans. A value's origin is not compared."""
    names = [n for n, item in after.explained.items() if item.value != before.explained[n].value]
    names += ["workers"] if before.workers != after.workers and "workers" not in names else []
    return tuple(names)


def _resolve(invocation: Invocation, before: Resolved) -> tuple[Resolved, list[str]]:
    """The new settings with the fixed ones of `before`, and the names of fixed ones that differed."""
    environ, folder = invocation.environ, invocation.folder
    found = resolve(invocation.cli, environ, folder)
    kept = _different(found.settings, before.settings)
    if "reload" in kept:  # other settings depend on it
        cli = {**invocation.cli, "reload": show(before.settings.reload)}
        found = resolve(cli, environ, folder)
        kept = ["reload", *_different(found.settings, before.settings)]
    names = [*FIXED, *kept]
    values = {name: getattr(before.settings, name) for name in names}
    origins = {**found.origins, **{name: before.origins[name] for name in names}}
    return found._replace(settings=dataclasses.replace(found.settings, **values), origins=origins), kept


def _keep_decided(plan: Plan, before: Plan) -> tuple[Plan, list[str]]:
    """The new plan with the fixed settings that a server's own configuration sets, and their names."""
    kept = _different(plan.settings, before.settings)
    values = {name: getattr(before.settings, name) for name in kept}
    explained = {**plan.explained, **{name: before.explained[name] for name in kept}}
    settings = dataclasses.replace(plan.settings, **values)
    return dataclasses.replace(plan, settings=settings, binds=before.binds, explained=explained), kept


def _different(found: Settings, before: Settings) -> list[str]:
    """The names of the fixed settings that differ. Turning TLS on or off is fixed; its files are not."""
    names = [name for name in FIXED if getattr(found, name) != getattr(before, name)]
    on = found.tls_certificate is not None
    return names if on == (before.tls_certificate is not None) else [*names, *_TLS]


def encode(answer: Replanned | str) -> bytes:
    """The bytes of a result, or of the reason why there is none, for the process that has asked."""
    import copyreg
    import pickle

    copyreg.pickle(MappingProxyType, _as_mapping)
    return pickle.dumps(answer)


def _as_mapping(proxy: MappingProxyType[Any, Any]) -> tuple[Any, tuple[Any, ...]]:
    return _mapping, (dict(proxy),)


def _mapping(content: dict[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(content)


def decode(data: bytes) -> Replanned | str:
    """What `encode` made, in a process that this one has started: never data of anybody else."""
    import pickle  # here, because only a roll needs it

    answer: Replanned | str = pickle.loads(data)  # noqa: S301
    return answer
