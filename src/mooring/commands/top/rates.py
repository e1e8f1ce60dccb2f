"""Two answers of /stats in, what happened between them out: rates and quantiles. Pure.

The page at `/` (page.html) has the same arithmetic in its script.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from mooring.scoreboard.row import quantile

Stats = Mapping[str, Any]


class Pace(NamedTuple):
    """Of one interval: requests and answers of the 5xx class per second, p50 and p99 in seconds, within 5 %.

    None where nothing was counted, or where there is nothing to compare with.
    """

    requests: float | None = None
    errors: float | None = None
    p50: float | None = None
    p99: float | None = None


def between(before: Stats | None, now: Stats) -> tuple[Pace, list[Pace]]:
    """The pace of all workers together, and of each entry of `now["workers"]`.

    `before` is an earlier answer; None, or one of another supervisor, compares with nothing. A worker that is
    new since then began at zero.
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
    return worker["serial"], worker["pid"]  # a serial is of one process, or of gunicorn's arbiter


def _pace(before: Stats, now: Stats, seconds: float, bounds: list[float]) -> Pace:
    pairs = zip_longest(now["buckets"], before["buckets"], fillvalue=0)  # without the zeros at their ends
    fresh = [max(0, count - earlier) for count, earlier in pairs]
    return Pace(
        max(0, now["requests"] - before["requests"]) / seconds,
        max(0, now["errors"] - before["errors"]) / seconds,
        quantile(fresh, 0.5, bounds),
        quantile(fresh, 0.99, bounds),
    )
