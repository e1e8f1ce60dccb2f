"""The application's metrics in Prometheus' text format 0.0.4. Not for adding them up: merge.py.

https://prometheus.io/docs/instrumenting/exposition_formats/
A character of a name that only newer formats allow becomes "_", as in prometheus_client.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from mooring.metrics.multiprocess import merge
from mooring.metrics.multiprocess.merge import Values

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")
_OURS = "mooring_"

Labels = tuple[tuple[str, str], ...]


class Key(NamedTuple):
    """A value's key, parsed."""

    family: str
    name: str
    labels: Labels
    help: str


class Family:
    """One metric with all its samples; `kind` is its type and, for a gauge, its mode (gauge_max)."""

    def __init__(self, kind: str, key: Key) -> None:
        self.kind = kind
        self.type, _, _ = kind.partition("_")
        self.name = key.family + ("_total" if self.type == "counter" else "")
        self.help = key.help
        self.samples: dict[tuple[str, Labels], list[tuple[float, float]]] = {}


def page(gathered: Mapping[tuple[str, str], Values]) -> bytes:
    """The page of all gathered values (merge.gather), families sorted by name; no name is in it twice."""
    taken: set[str] = set()
    lines: list[str] = []
    found = _families(gathered)
    for name in sorted(found):
        samples = _samples(found[name])
        names = {name, *(sample.partition("{")[0] for sample in samples)}
        # A counter "a" and a gauge "a_total", or "x.y" and "x_y", have the same name here: the second is left
        # out, since Prometheus refuses a page with duplicates.
        if name.startswith(_OURS) or names & taken or not samples:
            continue
        taken |= names
        lines.append(f"# HELP {name} {_escape_help(found[name].help)}\n# TYPE {name} {found[name].type}\n")
        lines += [f"{sample} {_number(value)}\n" for sample, value in samples.items()]
    return "".join(lines).encode("utf-8", "backslashreplace")


def _families(gathered: Mapping[tuple[str, str], Values]) -> dict[str, Family]:
    """The families by legal name. The first of a name wins; living processes' values were gathered first."""
    families: dict[str, Family] = {}
    parsed: dict[bytes, Key | None] = {}
    for (kind, pid), values in gathered.items():
        for raw, pairs in values.items():
            if raw not in parsed:
                parsed[raw] = _parse(raw)
            key = parsed[raw]
            if key is None:
                continue
            family = Family(kind, key)
            family = families.setdefault(_legal(family.name), family)
            if family.kind != kind:
                continue  # recorded by an older generation, with another type
            labels = key.labels
            if pid:
                labels = (*(pair for pair in labels if pair[0] != "pid"), ("pid", pid))
            family.samples.setdefault((key.name, labels), []).extend(pairs)
    return families


def _parse(raw: bytes) -> Key | None:
    try:
        family, name, labels, text = json.loads(raw)
        if not all(isinstance(each, str) for each in (family, name, text, *labels.values())):
            return None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not family or not name or "" in labels:  # Prometheus would refuse the whole page
        return None
    return Key(family, name, tuple(sorted(labels.items())), text)


def _samples(family: Family) -> dict[str, float]:
    """The value of each sample, by its name with labels as written in the page."""
    values: dict[tuple[str, Labels], float] = {}
    for sample, pairs in family.samples.items():
        value, extra = merge.reduce(family.kind, pairs)
        if not family.kind.endswith("mostrecent") or extra:  # a gauge without a timestamp was never set
            values[sample] = value
    if family.type == "histogram":
        values = _cumulated(family, values)
    return {
        _legal(name) + _escape_labels(labels): value
        for (name, labels), value in sorted(values.items(), key=_order)
    }


def _order(item: tuple[tuple[str, Labels], float]) -> tuple[Labels, str, float]:
    (name, labels), _ = item
    return tuple(pair for pair in labels if pair[0] != "le"), name, _bound(labels)


def _bound(labels: Labels) -> float:
    return next((_float(value) for name, value in labels if name == "le"), 0.0)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _cumulated(family: Family, values: dict[tuple[str, Labels], float]) -> dict[tuple[str, Labels], float]:
    """A histogram's values with its count and cumulative buckets; in the files they are not cumulative."""
    base = family.name
    found = {sample: value for sample, value in values.items() if sample[0] != f"{base}_bucket"}
    counts: dict[Labels, float] = {}
    for (name, labels), value in sorted(values.items(), key=_order):
        if name == f"{base}_bucket":
            rest = tuple(pair for pair in labels if pair[0] != "le")
            counts[rest] = found[name, labels] = counts.get(rest, 0.0) + value
    return found | {(f"{base}_count", rest): count for rest, count in counts.items()}


def _legal(name: str) -> str:
    name = _NOT_IN_NAMES.sub("_", name)
    return f"_{name[1:]}" if name[:1].isdigit() else name


def _legal_label(name: str) -> str:
    name = _NOT_IN_LABELS.sub("_", name)
    return f"_{name[1:]}" if name[:1].isdigit() else name


def _escape_labels(labels: Labels) -> str:
    if not labels:
        return ""
    legal = {_legal_label(name): value for name, value in labels}  # two names may become the same label
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(legal.items())) + "}"


def _escape(text: str) -> str:
    return _escape_help(text).replace('"', '\\"')


def _escape_help(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be encoded
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    if value == float("-inf"):
        return "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
