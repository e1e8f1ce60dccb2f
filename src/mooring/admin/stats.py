"""What the scoreboard and the supervisor know of the workers at one moment: read here for every page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from mooring import __version__, resources
from mooring.logs.escape import escape
from mooring.metrics.prometheus import STATUSES, Collected
from mooring.scoreboard.row import (
    BOUNDS,
    BUCKETS,
    CLASSES,
    COUNTS,
    DROPPED,
    DURATIONS,
    FULL,
    HISTOGRAM,
    MEMORY,
    PID,
    RAISED,
    STARTED,
    STATE,
    STATES,
    WEBSOCKETS,
    Row,
    quantile,
)
from mooring.settings import engines
from mooring.supervisor.lifecycle import Worker, WorkerState
from mooring.supervisor.loop import Supervisor

_MOST = 2**53  # no count is higher: they are doubles, and a worker may write anything into its row


class Seen(NamedTuple):
    """What is known of one worker; `counts` is what Row.counts returns, empty before it has a row."""

    serial: int
    slot: int
    pid: int | None
    arbiter_pid: int | None
    state: str
    generation: int
    age: float  # seconds
    memory: int | None  # bytes
    restarts: int  # how many workers of its slot have failed
    counts: Sequence[float]
    in_flight: int
    websockets: int
    full: bool  # whether it has its most connections
    row: Row | None


class ShownRequest(NamedTuple):
    """A request in flight: method and path escaped, the path without its query; `age_s` in seconds."""

    method: str
    path: str
    age_s: float
    pid: int | None
    slot: int

    def as_json(self) -> dict[str, Any]:
        """The request as an entry of /status."""
        return self._asdict()


def look(supervisor: Supervisor, now: float) -> list[Seen]:
    """All workers, by slot, the oldest first; an arbiter's workers in its place, once it has any."""
    rows: dict[int, list[Row]] = {}
    for seat in supervisor.workers.scoreboard.in_use():
        rows.setdefault(seat.serial, []).append(seat.row)
    found = []
    for serial, worker in supervisor.fleet.workers.items():
        if serial not in supervisor.workers.handles:
            continue  # it was reaped or could not be started, and the lifecycle has not been told yet
        own: Sequence[Row | None] = rows.get(serial) or (None,)
        for row in own:
            found.append(_seen(supervisor, serial, worker, row, now))
    return sorted(found, key=lambda seen: (seen.slot, -seen.age))


def _seen(supervisor: Supervisor, serial: int, worker: Worker, row: Row | None, now: float) -> Seen:
    handle = supervisor.workers.handles.get(serial)
    pid = (handle.pid or None) if handle else None
    report = handle.report if handle else None
    engine = report.engine if report else (handle.plan if handle else supervisor.plan).engine
    own = row is not None and engines.row(engine).has_arbiter  # the row is of a worker of the arbiter
    age = now - (row.read(STARTED) if row is not None and own else worker.spawned_at)
    memory = min(int(row.read(MEMORY)), _MOST) if row is not None else 0
    return Seen(
        serial=serial,
        slot=worker.slot,
        pid=min(int(row.read(PID)), _MOST) if row is not None and own else pid,
        arbiter_pid=pid if own else None,
        state=_state(worker, row if own else None),
        generation=worker.generation,
        age=max(0.0, age),
        memory=memory or (report.memory if report and not own else None),
        restarts=supervisor.history.exits.failed.get(worker.slot, 0),
        counts=row.counts() if row is not None else (),
        in_flight=min(row.in_flight_count(), _MOST) if row is not None else 0,
        websockets=min(int(row.read(WEBSOCKETS)), _MOST) if row is not None else 0,
        full=row is not None and row.read(FULL) > 0,
        row=row,
    )


def _state(worker: Worker, row: Row | None) -> str:
    """A worker's state by the lifecycle; for an arbiter's worker, by its `row` until the arbiter drains."""
    if row is None or worker.state in (WorkerState.DRAINING, WorkerState.KILLED):
        return str(worker.state)
    number = int(row.read(STATE))
    state = STATES[number] if number < len(STATES) else ""
    return state if state in ("starting", "ready", "draining") else str(worker.state)


def requests(workers: Sequence[Seen], now: float, most: int) -> list[ShownRequest]:
    """The `most` oldest requests in flight."""
    busy = [seen for seen in workers if seen.row is not None and seen.in_flight]
    found = [(each, seen) for seen in busy if seen.row for each in seen.row.in_flight(now)[:most]]
    oldest = sorted(found, key=lambda pair: -pair[0].age)[:most]
    return [
        ShownRequest(
            escape(each.method), escape(each.path.partition("?")[0]), round(each.age, 3), seen.pid, seen.slot
        )
        for each, seen in oldest
    ]


def count(counts: Sequence[float], digit: int | None = None) -> int:
    """The number of requests in `counts` (Row.counts); with `digit`, of one status class (5: 5xx)."""
    cells = counts[COUNTS:HISTOGRAM] if digit is None else counts[COUNTS + digit : HISTOGRAM : CLASSES]
    return int(min(sum(cells), _MOST))


def milliseconds(counts: Sequence[float], share: float) -> float | None:
    """A quantile (0.5: the median) of the requests' durations, in ms; None before the first request."""
    found = quantile(list(counts[HISTOGRAM:]), share)
    return None if found is None else round(found * 1000, 3)


def collect(supervisor: Supervisor, app_metrics_up: bool | None = None) -> Collected:
    """What the page /metrics is made of."""
    workers = look(supervisor, time.monotonic())
    plan, history = supervisor.plan, supervisor.history
    states = dict.fromkeys(map(str, WorkerState), 0)
    memory: dict[int, int] = {}
    for seen in workers:
        states[seen.state] += 1
        memory[seen.slot] = memory.get(seen.slot, 0) + (seen.memory or 0)
    return Collected(
        totals=supervisor.workers.totals(),
        in_flight=sum(seen.in_flight for seen in workers),
        websockets=sum(seen.websockets for seen in workers),
        workers=states,
        exits=history.exits.by_reason,
        rolls=history.rolls,
        memory={slot: size for slot, size in memory.items() if size},
        generation=supervisor.fleet.generation,
        version=__version__,
        engine=plan.engine,
        interface=plan.interface,
        started=history.started_at,
        cpu_cores=plan.resources.cpus.value,
        throttled=resources.cpu_throttled_seconds(),
        memory_limit=plan.resources.memory_limit.value,
        app_metrics_up=app_metrics_up,
        log_dropped=supervisor.log.lost,
    )


def feed(supervisor: Supervisor, head: dict[str, Any]) -> dict[str, Any]:
    """The /stats object: `head`, and all counts since the start. Its fields: docs/reference.md.

    A client makes rates from two such objects.
    """
    now = time.monotonic()
    workers = look(supervisor, now)
    totals, history, limits = supervisor.workers.totals(), supervisor.history, supervisor.plan.resources
    return {
        "now": round(now, 6),
        "time": round(time.time(), 3),
        **head,
        "limits": {
            "cpu_cores": limits.cpus.value,
            "memory_bytes": limits.memory_limit.value,
            "throttled_s": resources.cpu_throttled_seconds(),
        },
        "bounds": BOUNDS,
        "totals": {
            **_counted(totals),
            "by_status": {name: count(totals, digit) for digit, name in enumerate(STATUSES, 1)},
            "in_flight": sum(seen.in_flight for seen in workers),
            "websockets": sum(seen.websockets for seen in workers),
            "memory_bytes": sum(seen.memory or 0 for seen in workers),
            "dropped_lines": int(min(totals[DROPPED], _MOST)),
            "raised": int(min(totals[RAISED], _MOST)),
            "restarts": sum(history.exits.failed.values()),
            "rolls": history.rolls,
        },
        "workers": [_entry(seen) for seen in workers],
        "oldest": [
            {"what": f"{each.method} {each.path}", **each.as_json()} for each in requests(workers, now, 10)
        ],
        "exits": history.exits.by_reason,
    }


def _entry(seen: Seen) -> dict[str, Any]:
    return {
        "serial": seen.serial,
        "slot": seen.slot,
        "pid": seen.pid,
        "state": seen.state,
        "generation": seen.generation,
        "age_s": round(seen.age, 3),
        **_counted(seen.counts),
        "in_flight": seen.in_flight,
        "websockets": seen.websockets,
        "full": seen.full,
        "memory_bytes": seen.memory,
        "restarts": seen.restarts,
        "p50_ms": milliseconds(seen.counts, 0.5),
        "p99_ms": milliseconds(seen.counts, 0.99),
        **({"arbiter_pid": seen.arbiter_pid} if seen.arbiter_pid is not None else {}),
    }


def _counted(counts: Sequence[float]) -> dict[str, Any]:
    cells = counts[HISTOGRAM : HISTOGRAM + BUCKETS]
    sane = max(cells, default=0) < _MOST
    buckets = list(map(int, cells)) if sane else [int(min(each, _MOST)) for each in cells]
    while buckets and not buckets[-1]:
        buckets.pop()
    return {
        "requests": count(counts),
        "errors": count(counts, 5),
        "durations_s": round(min(counts[DURATIONS], _MOST), 6) if counts else 0,
        "buckets": buckets,
    }
