"""Rates and quantiles for the interval between two responses of /stats. Pure.

The script of the page at `/` (page.html) does the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from mooring.scoreboard.row import quantile

Stats = Mapping[str, Any]


class Pace(NamedTuple):
    """The rates of one interval: requests and 5xx responses per second, p50 and p99 in seconds (within 5 %).

    A value is None if nothing was counted, or if there is no earlier response to compare with.
    """

    requests: float | None = None
    errors: float | None = None
    p50: float | None = None
    p99: float | None = None


def between(before: Stats | None, now: Stats) -> tuple[Pace, list[Pace]]:
    """The pace of all workers together, and of each entry of `now["workers"]`.

    `before` is an earlier response; if it is None or another supervisor's, all values are None. A worker that
    has started since then counts from zero.
    """
    if before is None or before["pid"] != now["pid"] or before["now"] >= now["now"]:
        return Pace(), [Pace()] * len(now["workers"])
    seconds, bounds = now["now"] - before["now"], now["bounds"]
    earlier = {_identity(worker): worker for worker in before["workers"]}
    return (
        _pace(before["totals"], now["totals"], seconds, bounds),
        [_pace(earlier.get(_identity(worker), _NEW), worker, seconds, bounds) for worker in now["workers"]],
    )


_NEW: Stats = {"requests": 0, "errors": 0, "buckets": ()}


def _identity(worker: Stats) -> tuple[Any, Any]:
    return worker["serial"], worker["pid"]  # the workers of an engine's arbiter share its serial


def _pace(before: Stats, now: Stats, seconds: float, bounds: list[float]) -> Pace:
    pairs = zip_longest(now["buckets"], before["buckets"], fillvalue=0)  # /stats leaves out trailing zeros
    fresh = [max(0, count - earlier) for count, earlier in pairs]
    return Pace(
        max(0, now["requests"] - before["requests"]) / seconds,
        max(0, now["errors"] - before["errors"]) / seconds,
        quantile(fresh, 0.5, bounds),
        quantile(fresh, 0.99, bounds),
    )
