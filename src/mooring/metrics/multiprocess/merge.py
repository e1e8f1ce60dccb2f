"""Add up what all processes have recorded, as prometheus_client's MultiProcessCollector does.

Sums are exact, in any order and after any number of folds. With rounding, a counter of fractions could fall
by its last bit; Prometheus would take that for a restart, and count the whole value again. Not for the page:
text.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from mooring.metrics.multiprocess import files
from mooring.metrics.multiprocess.files import ADDED, EACH, Content, File

DEAD_SHOWN = 16  # dead processes whose gauges of mode "all" are shown; without a limit, series only grow
_PATIENCE = 2.0  # seconds of trying to read all files while no file changes its name; that takes about 1 ms

Values = dict[bytes, list[tuple[float, float]]]  # by key: values, each with its extra (files.FileEntry)


class UnsettledError(Exception):
    """Processes started and ended so fast that the state of one moment could not be read."""


class Snapshot(NamedTuple):
    """What all files held at one moment; `unreadable` are files that could not be read or parsed."""

    contents: dict[File, Content]
    unreadable: list[File]


def snapshot(folder: int) -> Snapshot:
    """Read the folder's state at one moment, each process once. Raises OSError, UnsettledError.

    Reading is repeated if a file was removed meanwhile, or renamed because its process died: readdir(3) may
    give an entry twice, or not at all, while it is renamed.
    """
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        before = set(files.list_files(folder))
        data, unreadable = {}, []
        try:
            for file in before:
                try:
                    data[file] = files.read(folder, file)
                except FileNotFoundError:
                    raise
                except OSError:
                    if file.folded:
                        raise  # without it, totals would go back
                    unreadable.append(file)
        except FileNotFoundError:
            continue
        after = set(files.list_files(folder))
        if before <= after and not any(file.gone for file in after - before):
            return _parsed(data, unreadable)
    raise UnsettledError(f"workers come and go faster than their metrics can be read in {_PATIENCE:g} s")


def _parsed(data: Mapping[File, bytes], unreadable: list[File]) -> Snapshot:
    contents = {}
    for file, each in sorted(data.items()):
        try:
            contents[file] = files.parse(each)
        except ValueError:
            unreadable.append(file)
    inside = within(contents)
    return Snapshot({file: each for file, each in contents.items() if file.name not in inside}, unreadable)


def within(contents: Mapping[File, Content]) -> set[str]:
    """The names of files that were folded into another file, and are not counted."""
    return {name for file, each in contents.items() if file.folded for name in each.within}


def shown(contents: Mapping[File, Content], dead: Iterable[str] = ()) -> Iterator[tuple[File, Content]]:
    """The files that belong on the page, those of living processes first; no live gauges of dead processes.

    `dead` are the pids of processes that have ended unnoticed: fold.dead_strangers.
    """
    gone = set(dead)
    latest = latest_dead(contents)
    for file in sorted(contents, key=lambda each: (bool(each.gone), each)):
        alive = not file.gone and file.pid not in gone
        if file.kind == "gauge_all" and file.gone and file not in latest:
            continue
        if alive or file.kind not in files.LIVE:
            yield file, contents[file]


def latest_dead(contents: Collection[File]) -> set[File]:
    """The gauges of mode "all" of the last DEAD_SHOWN dead processes, without pids that were used again."""
    last: dict[str, str] = {}
    for file in contents:
        # "living" sorts after all hexadecimal numbers.
        last[file.pid] = max(last.get(file.pid, ""), file.gone or "living")
    dead = [file for file in contents if file.kind == "gauge_all" and file.gone == last[file.pid]]
    return set(sorted(dead, key=lambda file: file.gone)[-DEAD_SHOWN:])


def gather(contents: Iterable[tuple[File, Content]]) -> dict[tuple[str, str], Values]:
    """All values: by kind and pid ("" unless each process has its own series), and then by key."""
    found: dict[tuple[str, str], Values] = {}
    for file, content in contents:
        values = found.setdefault((file.kind, file.pid if file.kind in EACH else ""), {})
        for key, value, extra in content.entries:  # a folded file may have a key more than once: `parts`
            values.setdefault(key, []).append((value, extra))
    return found


def reduce(kind: str, values: list[tuple[float, float]]) -> tuple[float, float]:
    """Merge the values of all processes into one, with its extra: a timestamp, or 0."""
    if len(values) == 1:
        return values[0]
    if kind in ADDED:
        return add([value for value, _ in values]), 0.0
    if kind.endswith("mostrecent"):
        return max(values, key=lambda pair: pair[1])
    if kind.endswith("min"):
        return min(values)
    return max(values)


def parts(kind: str, values: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The merged value as a folded file keeps it: a sum as several doubles, so that no bit of it is lost.

    A rounded sum could round differently when more is added later, and a counter would fall.
    """
    if kind not in ADDED:
        return [reduce(kind, values)]
    left = [value for value, _ in values]
    found: list[tuple[float, float]] = []
    while part := add(left):
        found.append((part, 0.0))
        if not math.isfinite(part):
            break
        left.append(-part)
    return found or [(0.0, 0.0)]


def add(values: list[float]) -> float:
    """The exact sum, rounded once."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # too large for a double, or infinities of both signs
        return sum(values)
