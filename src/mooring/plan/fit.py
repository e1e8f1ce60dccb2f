"""The plan's second stage: how many workers fit the memory, and what depends on the interface. Pure."""

from __future__ import annotations

import dataclasses

from mooring.plan.plan import Explained, FitWarning, Plan, Report
from mooring.settings import engines

_MIB = 1024 * 1024


def fit(current: Plan, report: Report, reserved: int = 0) -> Plan:
    """The plan after worker 0's report. A number of workers that the user set is kept, with a warning.

    `reserved` is the memory of the other processes (the supervisor, an engine's arbiter), in bytes.
    """
    explained = dict(current.explained)
    explained["interface"] = _decided(current, "interface", report.interface, "found in the application")
    explained["engine"] = _decided(
        current, "engine", report.engine, f"the default for {report.interface.upper()}"
    )
    explained["app"] = explained["app"]._replace(value=report.target)
    workers, added = current.workers, _unlimited(current, report)
    room = _room(current, report, reserved)
    if room is not None and room < workers:
        text = _memory_reason(current, report, reserved, room)
        if explained["workers"].origin == "tuned":
            reason = f"{explained['workers'].reason}; capped by memory: {text}"
            explained["workers"] = Explained(room, "tuned", reason)
            workers = room
        else:
            added.insert(0, FitWarning(f"{workers} workers were asked for, but {text}", workers))
    return dataclasses.replace(
        current,
        explained=explained,
        interface=report.interface,
        engine=report.engine,
        framework=report.framework,
        workers=workers,
        warnings=tuple(dict.fromkeys((*current.warnings, *(each.text for each in added)))),
        fit_warnings=tuple(dict.fromkeys((*current.fit_warnings, *added))),
        revision=current.revision + 1,
    )


def resized(plan: Plan, delta: int) -> Plan:
    """The plan with `delta` more workers, but at least one."""
    return dataclasses.replace(plan, workers=max(1, plan.workers + delta))


def _unlimited(current: Plan, report: Report) -> list[FitWarning]:
    """A warning if a WSGI worker can never reach max_in_flight; else empty."""
    most, threads = current.settings.max_in_flight, current.threads
    by_class = bool(engines.row(report.engine).threaded_classes)  # how many it runs: not known here
    if report.interface != "wsgi" or by_class or most <= threads:
        return []
    text = f"max_in_flight={most} refuses nothing: a WSGI worker runs {threads} requests at once (threads)"
    return [FitWarning(text)]


def _decided(current: Plan, name: str, value: str, reason: str) -> Explained:
    before = current.explained[name]
    return before if before.value == value else Explained(value, "tuned", reason)


def _room(current: Plan, report: Report, reserved: int) -> int | None:
    """How many workers of the reported size fit below the memory limit with headroom; None: no limit."""
    limit = current.resources.memory_limit.value
    if limit is None or not report.memory:
        return None
    usable = limit * (100 - current.settings.memory_headroom) // 100
    return max(1, (usable - reserved) // report.memory)


def _memory_reason(current: Plan, report: Report, reserved: int, room: int) -> str:
    limit = (current.resources.memory_limit.value or 0) // _MIB
    each = (report.memory or 0) // _MIB
    return (
        f"{room} fit: each takes {each} MiB, mooring itself {reserved // _MIB} MiB, the limit is {limit} MiB "
        f"({current.resources.memory_limit.source}) with {current.settings.memory_headroom} % left free"
    )
