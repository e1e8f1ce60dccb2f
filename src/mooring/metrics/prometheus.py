"""THE table of mooring's own metrics, and the page made from it: Prometheus text, format 0.0.4. Pure.

One metric is one row of METRICS; the page and docs/reference.md (`make docs`) derive from it. Not for the
application's own metrics: multiprocess/. Source of the format:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Literal, NamedTuple

from mooring.scoreboard.row import (
    BUCKETS,
    DROPPED,
    DURATIONS,
    HISTOGRAM,
    METHOD_BASE,
    RAISED,
    REFUSALS,
    REFUSED,
    REJECTED,
    TIMED_OUT,
    each_bound,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# Series that are in every page, with 0 at first, so that Prometheus has a rate from the first request on.
_ALWAYS = frozenset(("GET", status) for status in ("2xx", "3xx", "4xx", "5xx"))

Sample = tuple[tuple[str, ...], float]  # the labels' values, in the order of Metric.labels; the value


class Collected(NamedTuple):
    """The values of a page. `totals` is as from Row.counts; None is a value not known: it has no series."""

    totals: Sequence[float]
    in_flight: int
    websockets: int
    workers: Mapping[str, int]  # by state
    exits: Mapping[str, int]  # by reason
    rolls: Mapping[str, int]  # by outcome
    memory: Mapping[int, int]  # bytes, by slot
    generation: int
    version: str
    engine: str
    interface: str
    started: float  # seconds since the epoch
    cpu_cores: float | None = None
    throttled: float | None = None  # seconds
    memory_limit: int | None = None  # bytes
    app_metrics_up: bool | None = None
    log_dropped: int = 0


class Metric(NamedTuple):
    """One metric. `name` is without the prefix `mooring_`.

    `sample` gives its samples, one for each series; a metric without any is left out of the page. A histogram
    gives its cumulative buckets with the bound as their label, `+Inf` last, and then its sum without a label.
    `absent` tells the reference when the metric has no series, or which series it then lacks; empty: never.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    sample: Callable[[Collected], Iterable[Sample]]
    absent: str = ""


# -- samples of a metric -----------------------------------------------------------------------------------


def _one(value: float | None) -> tuple[Sample, ...]:
    return () if value is None else (((), value),)


def _each(values: Mapping[str, int] | Mapping[int, int]) -> list[Sample]:
    return [((str(key),), value) for key, value in values.items()]


def _requests(collected: Collected) -> Iterator[Sample]:
    totals = collected.totals
    for method, base in METHOD_BASE.items():
        for digit, status in enumerate(STATUSES, 1):
            if totals[base + digit] or (method, status) in _ALWAYS:
                yield (method, status), totals[base + digit]


def _refused(collected: Collected) -> list[Sample]:
    return [((reason,), collected.totals[REFUSED + number]) for number, reason in enumerate(REFUSALS)]


def _durations(collected: Collected) -> Iterator[Sample]:
    totals = collected.totals
    seen, start = 0.0, 0
    for index, bound in each_bound():
        seen += sum(totals[HISTOGRAM + start : HISTOGRAM + index + 1])
        start = index + 1
        yield (f"{bound:g}",), seen
    seen += sum(totals[HISTOGRAM + start : HISTOGRAM + BUCKETS])
    yield ("+Inf",), seen
    yield (), totals[DURATIONS]


def _serves(collected: Collected) -> tuple[Sample, ...]:
    return (((collected.version, collected.engine, collected.interface), 1),)


# -- the table ---------------------------------------------------------------------------------------------

# fmt: off
APP_METRICS_UP = Metric(
    "app_metrics_up", "gauge", (), "Whether the application's own metrics are in this page.",
    lambda collected: _one(collected.app_metrics_up), "where the application has none",
)
METRICS = (
    Metric("http_requests_total", "counter", ("method", "status"),
           "Requests answered, by method and status class.", _requests,
           "a series other than GET's 2xx to 5xx, before its first request"),
    Metric("http_request_duration_seconds", "histogram", ("le",),
           "Seconds that requests took, to the answer's end.", _durations),
    Metric("http_requests_in_flight", "gauge", (), "Requests that are being answered.",
           lambda collected: _one(collected.in_flight)),
    Metric("websockets_open", "gauge", (), "Open WebSocket connections.",
           lambda collected: _one(collected.websockets)),
    Metric("workers", "gauge", ("state",), "Workers, by state.",
           lambda collected: _each(collected.workers)),
    Metric("worker_exits_total", "counter", ("reason",), "Workers that have ended, by reason.",
           lambda collected: _each(collected.exits)),
    Metric("worker_memory_bytes", "gauge", ("slot",), "Proportional set size of a slot's workers together.",
           lambda collected: _each(collected.memory),
           "a slot of which it is not known: its worker still starts"),
    Metric("generation", "gauge", (), "The generation that is wanted; each roll begins a new one.",
           lambda collected: _one(collected.generation)),
    Metric("rolls_total", "counter", ("outcome",), "Rolls that have ended, by outcome.",
           lambda collected: _each(collected.rolls)),
    Metric("access_log_dropped_lines_total", "counter", (), "Access log lines that a slow reader has cost.",
           lambda collected: _one(collected.totals[DROPPED])),
    Metric("log_dropped_records_total", "counter", (), "Records of mooring's own log that found no room.",
           lambda collected: _one(collected.log_dropped)),
    Metric("http_requests_rejected_total", "counter", (), "Requests refused with 503: too many at once.",
           lambda collected: _one(collected.totals[REJECTED])),
    Metric("http_requests_timed_out_total", "counter", (),
           "Requests ended with 504, or cut: they took too long.",
           lambda collected: _one(collected.totals[TIMED_OUT])),
    Metric("http_refused_total", "counter", ("reason",),
           "Requests refused and connections cut because of the client, by reason.", _refused),
    Metric("http_requests_failed_total", "counter", (), "Requests in which the application failed.",
           lambda collected: _one(collected.totals[RAISED])),
    Metric("cpu_limit_cores", "gauge", (), "CPU cores that this container or machine really gives.",
           lambda collected: _one(collected.cpu_cores), "where it is not known"),
    Metric("cpu_throttled_seconds_total", "counter", (), "Seconds for which a CPU quota has held tasks back.",
           lambda collected: _one(collected.throttled), "in a cgroup that does not say it"),
    Metric("memory_limit_bytes", "gauge", (), "The memory limit of this container.",
           lambda collected: _one(collected.memory_limit), "where there is no limit"),
    Metric("start_time_seconds", "gauge", (), "When this instance was started, in seconds since the epoch.",
           lambda collected: _one(collected.started)),
    APP_METRICS_UP,
    Metric("info", "gauge", ("version", "engine", "interface"), "What serves; the value is 1.",
           _serves),
)
# fmt: on

# -- the page ----------------------------------------------------------------------------------------------


def render(collected: Collected) -> str:
    """The page with all metrics that have samples."""
    return "".join([family(metric, metric.sample(collected)) for metric in METRICS])


def family(metric: Metric, samples: Iterable[Sample]) -> str:
    """The lines of a metric with these samples; "" without samples."""
    name = f"mooring_{metric.name}"
    lines = _buckets if metric.type == "histogram" else _series
    text = "".join(lines(name, metric.labels, samples))
    return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.type}\n{text}" if text else ""


def _series(name: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> list[str]:
    pattern = name + ("{" + ",".join([f'{label}="%s"' for label in labels]) + "}" if labels else "")
    return [f"{pattern % tuple(map(_escape, values))} {_number(value)}\n" for values, value in samples]


def _buckets(name: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of a histogram. Its count is the value of the bucket `+Inf`, as the format requires."""
    *buckets, (_, total) = samples
    yield from _series(f"{name}_bucket", labels, buckets)
    yield f"{name}_sum {_number(total)}\n{name}_count {_number(buckets[-1][1])}\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if abs(value) < 2**53 and value == int(value):
        return str(int(value))
    return repr(float(value)) if isfinite(value) else "+Inf"
