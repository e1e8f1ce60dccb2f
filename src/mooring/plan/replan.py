"""What a roll takes up: settings and plan made anew, from the configuration file as it is now.

With the environment and the arguments of the start. What only a restart can change keeps its value, and is
named. Not for when this is done, nor where: in a process of its own, supervisor/reconfigure.py.
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


Prepare = Callable[[Resolved, Mapping[str, str], SignalQueue | None], Plan]
"""Makes a plan of settings, with the environment: commands/run/prepare.py."""


class Made(NamedTuple):
    """A plan's first stage, its settings, and the names of those that have changed without effect."""

    plan: Plan
    resolved: Resolved
    kept: tuple[str, ...] = ()


def remake(
    invocation: Invocation, prepare: Prepare, serving: Made, signals: SignalQueue | None = None
) -> Made:
    """Resolve and plan anew; what is fixed is as in `serving`. Raises what a start with it would."""
    resolved, kept = _resolve(invocation, serving.resolved)
    plan = prepare(resolved, invocation.environ, signals)
    plan, more = _keep_decided(plan, serving.plan)
    return Made(plan, resolved, tuple(dict.fromkeys((*kept, *more))))


def changed(before: Plan, after: Plan) -> tuple[str, ...]:
    """The names of what two plans have decided differently; where a value came from does not count."""
    names = [n for n, item in after.explained.items() if item.value != before.explained[n].value]
    names += ["workers"] if before.workers != after.workers and "workers" not in names else []
    return tuple(names)


def _resolve(invocation: Invocation, before: Resolved) -> tuple[Resolved, list[str]]:
    """The settings, with those of `before` that are fixed, and the names of those that were to change."""
    environ, folder = invocation.environ, invocation.folder
    found = resolve(invocation.cli, environ, folder)
    kept = _different(found.settings, before.settings)
    if "reload" in kept:  # which has a say in all others
        cli = {**invocation.cli, "reload": show(before.settings.reload)}
        found = resolve(cli, environ, folder)
        kept = ["reload", *_different(found.settings, before.settings)]
    names = [*FIXED, *kept]
    values = {name: getattr(before.settings, name) for name in names}
    origins = {**found.origins, **{name: before.origins[name] for name in names}}
    return found._replace(settings=dataclasses.replace(found.settings, **values), origins=origins), kept


def _keep_decided(plan: Plan, before: Plan) -> tuple[Plan, list[str]]:
    """The same for what a server's own configuration sets."""
    kept = _different(plan.settings, before.settings)
    values = {name: getattr(before.settings, name) for name in kept}
    explained = {**plan.explained, **{name: before.explained[name] for name in kept}}
    settings = dataclasses.replace(plan.settings, **values)
    return dataclasses.replace(plan, settings=settings, binds=before.binds, explained=explained), kept


def _different(found: Settings, before: Settings) -> list[str]:
    """The fixed settings that differ. Whether the listeners speak TLS is fixed; with which files is not."""
    names = [name for name in FIXED if getattr(found, name) != getattr(before, name)]
    on = found.tls_certificate is not None
    return names if on == (before.tls_certificate is not None) else [*names, *_TLS]


def encode(answer: Made | str) -> bytes:
    """What was made, or why it could not be, for the process that has asked."""
    import copyreg
    import pickle

    copyreg.pickle(MappingProxyType, _as_mapping)
    return pickle.dumps(answer)


def _as_mapping(proxy: MappingProxyType[Any, Any]) -> tuple[Any, tuple[Any, ...]]:
    return _mapping, (dict(proxy),)


def _mapping(content: dict[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(content)


def decode(data: bytes) -> Made | str:
    """The answer of a process of our own."""
    import pickle  # only for who rolls

    answer: Made | str = pickle.loads(data)  # noqa: S301
    return answer
