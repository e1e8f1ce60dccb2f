"""The supervisor's facts as Prometheus text, format 0.0.4. Pure. Not for the application's own metrics.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from mooring.scoreboard.row import (
    BUCKETS,
    DROPPED,
    DURATIONS,
    HISTOGRAM,
    METHOD_BASE,
    RAISED,
    REJECTED,
    TIMED_OUT,
    each_bound,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# Series that are always there, so that a rate can be taken from the first scrape on.
_ALWAYS = frozenset(("GET", status) for status in ("2xx", "3xx", "4xx", "5xx"))

Sample = tuple[str, str, float]  # what follows the family's name, the labels, the value


class Facts(NamedTuple):
    """What a page is made of. `totals` as Row.counts; None is what is not known, and then has no series."""

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


# fmt: off
_FAMILIES = {
    "http_requests_total": ("counter", "Requests answered, by method and status class."),
    "http_request_duration_seconds": ("histogram", "Seconds that requests took, to the answer's end."),
    "http_requests_in_flight": ("gauge", "Requests that are being answered."),
    "http_requests_rejected_total": ("counter", "Requests refused with 503: too many at once."),
    "http_requests_timed_out_total": ("counter", "Requests ended with 504, or cut: they took too long."),
    "http_requests_failed_total": ("counter", "Requests in which the application failed."),
    "websockets_open": ("gauge", "Open WebSocket connections."),
    "workers": ("gauge", "Workers, by state."),
    "worker_exits_total": ("counter", "Workers that have ended, by reason."),
    "worker_memory_bytes": ("gauge", "Proportional set size of a slot's workers together."),
    "generation": ("gauge", "The generation that is wanted; each roll begins a new one."),
    "rolls_total": ("counter", "Rolls that have ended, by outcome."),
    "access_log_dropped_lines_total": ("counter", "Access log lines that a slow reader has cost."),
    "cpu_limit_cores": ("gauge", "CPU cores that this container or machine really gives."),
    "cpu_throttled_seconds_total": ("counter", "Seconds for which a CPU quota has held tasks back."),
    "memory_limit_bytes": ("gauge", "The memory limit of this container."),
    "start_time_seconds": ("gauge", "When this instance was started, in seconds since the epoch."),
    "app_metrics_up": ("gauge", "Whether the application's own metrics are in this page."),
    "info": ("gauge", "What serves; the value is 1."),
}
# fmt: on


def render(facts: Facts) -> str:
    """The page."""
    return "".join(_family(name, list(samples)) for name, samples in _samples(facts).items())


def _samples(facts: Facts) -> dict[str, Iterable[Sample]]:
    serves = _labels(version=facts.version, engine=facts.engine, interface=facts.interface)
    return {
        "http_requests_total": _requests(facts.totals),
        "http_request_duration_seconds": _histogram(facts.totals),
        "http_requests_in_flight": _one(facts.in_flight),
        "websockets_open": _one(facts.websockets),
        "workers": _each("state", facts.workers),
        "worker_exits_total": _each("reason", facts.exits),
        "worker_memory_bytes": _each("slot", facts.memory),
        "generation": _one(facts.generation),
        "rolls_total": _each("outcome", facts.rolls),
        "access_log_dropped_lines_total": _one(facts.totals[DROPPED]),
        "http_requests_rejected_total": _one(facts.totals[REJECTED]),
        "http_requests_timed_out_total": _one(facts.totals[TIMED_OUT]),
        "http_requests_failed_total": _one(facts.totals[RAISED]),
        "cpu_limit_cores": _one(facts.cpu_cores),
        "cpu_throttled_seconds_total": _one(facts.throttled),
        "memory_limit_bytes": _one(facts.memory_limit),
        "start_time_seconds": _one(facts.started),
        "app_metrics_up": _one(facts.app_metrics_up),
        "info": [("", serves, 1)],
    }


def _family(name: str, samples: list[Sample]) -> str:
    if not samples:
        return ""
    kind, help_text = _FAMILIES[name]
    lines = [f"mooring_{name}{suffix}{labels} {_number(value)}\n" for suffix, labels, value in samples]
    return f"# HELP mooring_{name} {help_text}\n# TYPE mooring_{name} {kind}\n{''.join(lines)}"


def _one(value: float | None) -> Iterable[Sample]:
    return () if value is None else (("", "", value),)


def _each(label: str, values: Mapping[str, int] | Mapping[int, int]) -> Iterable[Sample]:
    return [("", _labels(**{label: str(key)}), value) for key, value in values.items()]


def _requests(totals: Sequence[float]) -> Iterator[Sample]:
    for method, base in METHOD_BASE.items():
        for digit, status in enumerate(STATUSES, 1):
            if totals[base + digit] or (method, status) in _ALWAYS:
                yield "", _labels(method=method, status=status), totals[base + digit]


def _histogram(totals: Sequence[float]) -> Iterator[Sample]:
    """Cumulative, as the format wants it; `+Inf` and the count are one number."""
    seen, start = 0.0, 0
    for index, bound in each_bound():
        seen += sum(totals[HISTOGRAM + start : HISTOGRAM + index + 1])
        start = index + 1
        yield "_bucket", f'{{le="{bound:g}"}}', seen
    seen += sum(totals[HISTOGRAM + start : HISTOGRAM + BUCKETS])
    yield "_bucket", '{le="+Inf"}', seen
    yield "_sum", "", totals[DURATIONS]
    yield "_count", "", seen


def _labels(**values: str) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in values.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if abs(value) < 2**53 and value == int(value):
        return str(int(value))
    return repr(float(value)) if isfinite(value) else "+Inf"
