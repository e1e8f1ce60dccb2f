"""What `mooring top` shows, as lines to a given width and height: made from /stats and its rates. Pure.

Below the workers are the last roll, the last exits, and requests that take long. A line is a list of spans,
which are text with a style; screen.py turns styles into escape sequences. All text from the application or
from clients is escaped here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mooring.commands.top.columns import ScreenLine, Span, clip, fit_columns, wrap
from mooring.commands.top.rates import Pace, Stats
from mooring.logs.escape import escape
from mooring.system.units import age, latency, per_second, size

_NARROWEST = 20
BARS = "▁▂▃▄▅▆▇█"
_STATES = {
    "ready": "good",
    "serving": "good",
    "starting": "busy",
    "booting": "busy",
    "rolling": "busy",
    "draining": "busy",
    "stopping": "bad",
    "killed": "bad",
}


class View(NamedTuple):
    """One moment: the response of /stats, its rates, and earlier requests per second, oldest first."""

    facts: Stats
    total: Pace
    workers: list[Pace]
    history: Sequence[float] = ()
    note: str = ""  # a problem with the instance that replaces its state in the header


def render(view: View, width: int, height: int | None = None) -> list[ScreenLine]:
    """The view as at most `height` lines (None: no limit) of at most `width` columns."""
    width = max(width, _NARROWEST)
    head = [*_header(view, width), [], *_totals(view, width), []]
    if height is None:
        return [*head, *_table(view, width, None), *below(view.facts, width, 5, 5)]
    room = height - len(head)
    workers = len(view.facts["workers"]) + 1
    for exits, requests in ((5, 5), (3, 3), (2, 1), (1, 0), (0, 0)):
        last = below(view.facts, width, exits, requests)
        if len(last) <= max(room - workers, room // 3):
            break
    table = _table(view, width, max(room - len(last), 2))
    return [*head, *table, *last][:height]


# -- the header --------------------------------------------------------------------------------------------


def _header(view: View, width: int) -> list[ScreenLine]:
    facts = view.facts
    state = str(facts["state"])
    ready = "ready" if facts["ready"] else f"not ready{because(facts['reason'])}"
    shown = [
        Span(state, _STATES.get(state, "")),
        Span(", "),
        Span(ready, "good" if facts["ready"] else "bad"),
    ]
    if view.note:
        shown = [Span(escape(view.note), "bad")]
    title = [Span(escape(str(facts["application"])), "strong"), Span("  "), *shown]
    framework = f" ({escape(facts['framework'])})" if facts.get("framework") else ""
    what = [
        f"{facts['engine']} serves {str(facts['interface']).upper()}{framework}",
        f"generation {facts['generation']}",
        f"up {age(facts['uptime_s'])}",
        f"pid {facts['pid']}",
        *([escape(str(facts["name"]))] if facts["name"] else []),
        f"mooring {escape(str(facts['version']))}",
    ]
    lines = [clip(title, width), *wrap(what, width)]
    lines += wrap([_plan(facts)], width)
    return [
        *lines,
        *wrap([*_limits(facts["limits"]), f"at {', '.join(map(escape, facts['listeners']))}"], width),
    ]


def _limits(limits: Stats) -> Iterator[str]:
    cores, memory, throttled = limits["cpu_cores"], limits["memory_bytes"], limits["throttled_s"]
    yield f"{cores:g} CPU core{'' if cores == 1 else 's'}" if cores else "no CPU limit"
    if throttled:
        yield f"throttled for {duration(throttled)} so far"
    yield f"memory limit {size(memory)}" if memory else "no memory limit"


def _plan(facts: Stats) -> str:
    workers, threads = facts["plan"]["workers"], facts["plan"].get("threads") or {}
    count = workers["value"]
    text = f"{count} worker{'' if count == 1 else 's'}"
    if facts["interface"] == "wsgi" and (threads.get("value") or 1) > 1:
        text += f" of {threads['value']} threads"
    return f"{text}: {escape(workers['reason'] or workers['origin'])}"


# -- all workers together ----------------------------------------------------------------------------------


def _totals(view: View, width: int) -> list[ScreenLine]:
    totals, pace = view.facts["totals"], view.total
    figures = [
        (per_second(pace.requests), "req/s", "strong"),
        ("p50", latency(pace.p50), "strong"),
        ("p99", latency(pace.p99), "strong"),
        (_count(totals["in_flight"]), "in flight", "strong"),
        (per_second(pace.errors), "5xx/s", "bad" if pace.errors else "strong"),
        (_count(totals["websockets"]), "websockets", "strong"),
        (size(totals["memory_bytes"] or None), "in use", "strong"),
    ]
    if totals["dropped_lines"]:
        figures.append((_count(totals["dropped_lines"]), "log lines dropped", "bad"))
    rows: list[ScreenLine] = [[]]
    used = 0
    for first, second, style in figures:
        names = first in ("p50", "p99")
        item = [Span(f"{first} ", "" if names else style), Span(second, style if names else "")]
        long = len(first) + 1 + len(second)
        if used and used + 3 + long > width:
            rows.append([])
            used = 0
        rows[-1] += [Span("   ")] * bool(used) + item
        used += long + 3 * bool(used)
    return [clip(row, width) for row in rows] + _sparkline(view.history, width)


def _count(value: float | None) -> str:
    return "-" if value is None else f"{int(value):,}"


def _sparkline(history: Sequence[float], width: int) -> list[ScreenLine]:
    if len(history) < 2:
        return []
    most = max(history)
    shown = history[-min(60, width - 24) :] if width > 32 else ()
    bars = "".join(BARS[min(7, int(8 * value / most))] if most else BARS[0] for value in shown)
    return [[Span(bars, "good"), Span(f" req/s, most {per_second(most)}", "dim")]] if shown else []


# -- the table ---------------------------------------------------------------------------------------------


def _table(view: View, width: int, room: int | None) -> list[ScreenLine]:
    """The heading and a line for each worker; if that is more than `room` lines, only the busiest workers."""
    numbers = range(len(view.workers))
    chosen, left = list(numbers), 0
    if room is not None and len(chosen) + 1 > room:
        left = len(chosen) - max(room - 2, 0)
        chosen = sorted(numbers, key=lambda number: _urgency(view, number))[: max(room - 2, 0)]
    chosen.sort(key=lambda number: (view.facts["workers"][number]["slot"], number))
    table = [_HEADINGS, *(_cells(view.facts["workers"][number], view.workers[number]) for number in chosen)]
    lines = fit_columns(table, _LEAST, _WORDS, _DROP, width)
    if left:
        lines.append(clip([Span(f"{left} more; shown are those not ready and the busiest", "dim")], width))
    return lines


def _urgency(view: View, number: int) -> tuple[bool, float, int]:
    return view.facts["workers"][number]["state"] == "ready", -(view.workers[number].requests or 0), number


# The headings, each with its turn at which a narrow terminal loses that column (0: never).
_COLUMNS = {
    "SLOT": 0, "PID": 6, "STATE": 9, "GEN": 3, "REQ/S": 0, "5XX/S": 2, "P50": 7, "P99": 10, "FLIGHT": 0,
    "WS": 1, "MEMORY": 8, "AGE": 5, "RESTARTS": 4,
}  # fmt: skip
_NAMES = list(_COLUMNS)
# Minimum widths of columns whose values change in length, so that the table does not move.
_ROOM = {"PID": 6, "STATE": 8, "REQ/S": 6, "P50": 7, "P99": 7, "MEMORY": 7, "AGE": 6}
_HEADINGS = [Span(name, "head") for name in _NAMES]
_LEAST = [_ROOM.get(name, 0) for name in _NAMES]
_WORDS = (_NAMES.index("STATE"),)
_DROP = [_NAMES.index(name) for name in sorted(_NAMES, key=_COLUMNS.__getitem__) if _COLUMNS[name]]


def _cells(worker: Stats, pace: Pace) -> list[Span]:
    state, restarts = str(worker["state"]), worker["restarts"]
    return [
        Span(str(worker["slot"])),
        Span(str(worker["pid"] or "-")),
        Span(state, _STATES.get(state, "")),
        Span(str(worker["generation"])),
        Span(per_second(pace.requests), "strong"),
        Span(per_second(pace.errors), "bad" if pace.errors else ""),
        Span(latency(pace.p50)),
        Span(latency(pace.p99)),
        Span(_count(worker["in_flight"])),
        Span(_count(worker["websockets"])),
        Span(size(worker["memory_bytes"])),
        Span(age(worker["age_s"])),
        Span(_count(restarts), "busy" if restarts else ""),
    ]


_OLD = 1.0  # seconds: younger requests in flight come and go too fast to be read


def below(facts: Stats, width: int, exits: int, requests: int) -> list[ScreenLine]:
    """The last roll, at most `exits` exits and `requests` old requests; no section without entries."""
    roll = _roll(facts["last_roll"])
    old = [request for request in facts["oldest"] if request["age_s"] >= _OLD]
    sections: list[tuple[str, Iterable[list[Span]]]] = [
        ("last roll", [roll] if roll else []),
        ("last exits", [_exit(each) for each in reversed(facts["last_exits"][-exits:] if exits else ())]),
        ("in flight for a second or longer", [_request(each) for each in old[:requests]]),
    ]
    lines: list[ScreenLine] = []
    for title, entries in sections:
        if found := [clip([Span("  "), *entry], width) for entry in entries]:
            lines += [[], clip([Span(title, "head")], width), *found]
    return lines


def _clock(seconds: float) -> Span:
    return Span(time.strftime("%H:%M:%S  ", time.localtime(seconds)), "dim")


def _roll(roll: Stats | None) -> list[Span]:
    if not roll:
        return []
    if roll["outcome"] == "rolled":
        generation = f": generation {roll['generation']} serves" if roll.get("generation") else ""
        return [_clock(roll["time"]), Span(f"rolled{generation}", "good")]
    back = ", rolled back" if roll.get("rolled_back") else ""
    if roll["outcome"] == "roll refused":
        return [_clock(roll["time"]), Span("refused", "bad"), Span(because(roll.get("why")))]
    return [_clock(roll["time"]), Span(f"failed{back}", "bad"), Span(because(roll.get("why")))]


def _exit(ended: Stats) -> list[Span]:
    style = "bad" if ended.get("failed") else ""
    where = f"slot {ended['slot']}, {ended['state']}: "
    return [_clock(ended["time"]), Span(where), Span(escape(str(ended["reason"])), style)]


def _request(request: Stats) -> list[Span]:
    seconds = request["age_s"]
    return [
        Span(f"{duration(seconds):>7}  ", "busy" if seconds >= 10 else ""),
        Span(f"pid {request['pid']}  "),
        Span(escape(str(request["what"]))),
    ]


def duration(seconds: float) -> str:
    """A duration in words: as an age from ten seconds on, else as a latency."""
    return age(seconds) if seconds >= 10 else latency(seconds)


def because(reason: object) -> str:
    """A reason as `: REASON`, to be put behind a state; empty if there is none."""
    return f": {escape(str(reason))}" if reason else ""
