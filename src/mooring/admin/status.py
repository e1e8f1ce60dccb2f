"""The /status object, what it shares with /stats, and readiness, from the supervisor's state.

Pure, except that it reads the clock.
"""

from __future__ import annotations

import os
import time
from typing import Any

from mooring import __version__
from mooring.admin import stats
from mooring.plan import redact
from mooring.scoreboard.row import FULL
from mooring.supervisor.lifecycle import Cause, FleetState, Reason, WorkerState
from mooring.supervisor.loop import Supervisor

_REQUESTS = 100  # the most requests in flight that are shown
_FAILED = "the application failed: see mooring status, or the log"
_REFUSED = "the settings were refused: see mooring status, or the log"  # the text itself may quote a file
_IN_FEED = ("workers", "threads", "engine", "timeout", "graceful_timeout", "profile")


def head(supervisor: Supervisor, *, public: bool) -> dict[str, Any]:
    """What /status and /stats have in common. `public`: without texts that come from the application."""
    fleet, plan, history = supervisor.fleet, supervisor.plan, supervisor.history
    reason = not_ready(supervisor)
    return {
        "state": str(fleet.state),
        "ready": reason is None,
        "reason": reason,
        "full": full(supervisor),
        "generation": fleet.generation,
        "engine": plan.engine,
        "interface": plan.interface,
        "framework": plan.framework,
        "application": redact.call(plan.explained["app"].value),
        "version": __version__,
        "pid": os.getpid(),
        "name": plan.settings.name,
        "uptime_s": round(time.monotonic() - history.started, 3),
        "size": fleet.size,
        "listeners": supervisor.urls,
        "admin": supervisor.admin_urls,
        "probes": supervisor.probe_urls,
        "last_roll": history.last_roll and _worded(history.last_roll, "why", public=public),
        "last_exits": [_worded(each, "reason", public=public) for each in history.last_exits],
    }


def _worded(facts: dict[str, Any], name: str, *, public: bool) -> dict[str, Any]:
    """The facts with the value of `name`, a `Reason` or the text of a refusal, as text for people."""
    why = facts.get(name)
    if why is None:
        return facts
    if not public:
        return {**facts, name: str(why)}
    if isinstance(why, Reason):
        return {**facts, name: own_words(why)}
    return {**facts, name: _REFUSED}


def own_words(why: Reason) -> str:
    """Why a worker has ended, in mooring's own words: the application's may contain secrets."""
    return _FAILED if why.cause is Cause.FAILED else str(why)


def status(supervisor: Supervisor, *, public: bool = False) -> dict[str, Any]:
    """The /status object; its fields are promised in docs/reference.md."""
    plan, now = supervisor.plan, time.monotonic()
    workers = stats.look(supervisor, now)
    hangs = supervisor.history.last_hangs
    return {
        **head(supervisor, public=public),
        "surge": supervisor.history.surge,
        "last_hangs": [{k: v for k, v in h.items() if k != "stacks"} for h in hangs] if public else hangs,
        "conf": plan.conf.path if plan.conf else None,
        "workers": [_worker(seen) for seen in workers],
        "requests_in_flight": [each.as_json() for each in stats.requests(workers, now, _REQUESTS)],
        "companions": [
            {"name": each.name, "pid": each.pid or None, "starts": each.starts, "last_exit": each.last_exit}
            for each in supervisor.companions
        ],
        "templates": supervisor.workers.spawner.as_json(),
        "plan": {"revision": plan.revision, **redact.plan(plan.as_json())},
        "warnings": [redact.without_arguments(each, plan.explained["app"].value) for each in plan.warnings],
    }


def _worker(seen: stats.Seen) -> dict[str, Any]:
    return {
        "slot": seen.slot,
        "pid": seen.pid,
        "state": seen.state,
        "generation": seen.generation,
        "requests": stats.count(seen.counts),
        "in_flight": seen.in_flight,
        "memory_bytes": seen.memory,
        "age_s": round(seen.age, 3),
        "errors": stats.count(seen.counts, 5),
        "websockets": seen.websockets,
        "full": seen.full,
        "p50_ms": stats.milliseconds(seen.counts, 0.5),
        "p99_ms": stats.milliseconds(seen.counts, 0.99),
        "restarts": seen.restarts,
        **({"arbiter_pid": seen.arbiter_pid} if seen.arbiter_pid is not None else {}),
    }


def feed(supervisor: Supervisor, *, public: bool = False) -> dict[str, Any]:
    """The /stats object, for `mooring top` and the page; its fields: docs/reference.md."""
    shown = redact.plan(supervisor.plan.as_json())
    few = {name: shown[name] for name in _IN_FEED if name in shown}
    return stats.feed(supervisor, {**head(supervisor, public=public), "plan": few})


def full(supervisor: Supervisor) -> str | None:
    """How many workers have their most connections, in words; None where none has.

    Such an instance is ready: it makes room for new clients, and a probe that failed would lock them all out.
    """
    rows = [seat.row for seat in supervisor.workers.scoreboard.in_use() if seat.row.used]
    count = sum(row.read(FULL) > 0 for row in rows)
    return f"{count} of {len(rows)} workers have their most connections" if count else None


def not_ready(supervisor: Supervisor) -> str | None:
    """Why the instance is not ready for requests; None where it is."""
    fleet = supervisor.fleet
    if fleet.state in {FleetState.STOPPING, FleetState.STOPPED}:
        return "stopping"
    if not any(worker.state is WorkerState.READY for worker in fleet.workers.values()):
        return "no worker is ready"
    return None
