"""What has happened last, for `mooring top`: rolls, exits, and requests that take long. Pure.

All text of the application or of clients is escaped here. Not for the present: view.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from mooring.commands.top.columns import Row, Span, clip
from mooring.commands.top.rates import Facts
from mooring.logs.escape import escape
from mooring.system.units import age, latency

_OLD = 1.0  # seconds: younger requests in flight come and go too fast to be read


def below(facts: Facts, width: int, exits: int, requests: int) -> list[Row]:
    """The last roll, so many of the last exits, and of the oldest requests; nothing where nothing was."""
    roll = _roll(facts["last_roll"])
    old = [request for request in facts["oldest"] if request["age_s"] >= _OLD]
    sections: list[tuple[str, Iterable[list[Span]]]] = [
        ("last roll", [roll] if roll else []),
        ("last exits", [_exit(each) for each in reversed(facts["last_exits"][-exits:] if exits else ())]),
        ("in flight for a second or longer", [_request(each) for each in old[:requests]]),
    ]
    lines: list[Row] = []
    for title, entries in sections:
        if found := [clip([Span("  "), *entry], width) for entry in entries]:
            lines += [[], clip([Span(title, "head")], width), *found]
    return lines


def _clock(seconds: float) -> Span:
    return Span(time.strftime("%H:%M:%S  ", time.localtime(seconds)), "dim")


def _roll(roll: Facts | None) -> list[Span]:
    if not roll:
        return []
    if roll["outcome"] == "rolled":
        generation = f": generation {roll['generation']} serves" if roll.get("generation") else ""
        return [_clock(roll["time"]), Span(f"rolled{generation}", "good")]
    back = ", rolled back" if roll.get("rolled_back") else ""
    if roll["outcome"] == "roll refused":
        return [_clock(roll["time"]), Span("refused", "bad"), Span(because(roll.get("why")))]
    return [_clock(roll["time"]), Span(f"failed{back}", "bad"), Span(because(roll.get("why")))]


def _exit(ended: Facts) -> list[Span]:
    style = "bad" if ended.get("failed") else ""
    where = f"slot {ended['slot']}, {ended['state']}: "
    return [_clock(ended["time"]), Span(where), Span(escape(str(ended["reason"])), style)]


def _request(request: Facts) -> list[Span]:
    seconds = request["age_s"]
    return [
        Span(f"{duration(seconds):>7}  ", "busy" if seconds >= 10 else ""),
        Span(f"pid {request['pid']}  "),
        Span(escape(str(request["what"]))),
    ]


def duration(seconds: float) -> str:
    """An age, or below ten seconds a latency."""
    return age(seconds) if seconds >= 10 else latency(seconds)


def because(reason: object) -> str:
    """A reason after what it is the reason of; empty where there is none."""
    return f": {escape(str(reason))}" if reason else ""
