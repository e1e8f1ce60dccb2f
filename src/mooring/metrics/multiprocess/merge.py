"""Add up what all processes have recorded, as prometheus_client's MultiProcessCollector does. Not the page.

Sums are exact, whatever the order and however often they were folded: else a counter of fractions could seem
to go back by the last bit, which Prometheus takes for a restart, and counts the whole value again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from mooring.metrics.multiprocess import files
from mooring.metrics.multiprocess.files import ADDED, EACH, Content, File

DEAD_SHOWN = 16  # dead processes whose gauges of mode "all" are kept: else each would be a series for ever
_PATIENCE = 2.0  # seconds in which the folder has to stand still for the millisecond of a look at it

Values = dict[bytes, list[tuple[float, float]]]  # a key's values with their extras


class UnsettledError(Exception):
    """Processes came and went so fast that no moment's state could be read."""


class Snapshot(NamedTuple):
    """What all files held at one moment; `unreadable` are those that are none of prometheus_client's."""

    contents: dict[File, Content]
    unreadable: list[File]


def snapshot(folder: int) -> Snapshot:
    """The folder as it was at one moment, each process under one name. Raises OSError, UnsettledError.

    Whenever a file got a dead one's name meanwhile, or vanished, that is repeated: readdir(3) may give an
    entry that is renamed twice, or not at all.
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
    """The names of files that are folded into another, and count no more."""
    return {name for file, each in contents.items() if file.folded for name in each.within}


def shown(contents: Mapping[File, Content], dead: Iterable[str] = ()) -> Iterator[tuple[File, Content]]:
    """What belongs on the page, the living first: gauges that are for the living only are not of the dead.

    `dead` are pids of processes that are gone though nothing has told of it.
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
    """The files of mode "all" of those that died last, and whose pid nobody has had since."""
    last: dict[str, str] = {}
    for file in contents:
        last[file.pid] = max(last.get(file.pid, ""), file.gone or "living")  # which is after all hexadecimal
    dead = [file for file in contents if file.kind == "gauge_all" and file.gone == last[file.pid]]
    return set(sorted(dead, key=lambda file: file.gone)[-DEAD_SHOWN:])


def gather(contents: Iterable[tuple[File, Content]]) -> dict[tuple[str, str], Values]:
    """All values by kind (and pid, where each process has its series) and key."""
    found: dict[tuple[str, str], Values] = {}
    for file, content in contents:
        values = found.setdefault((file.kind, file.pid if file.kind in EACH else ""), {})
        for key, value, extra in content.entries:  # a sum's key may be there more than once: `parts`
            values.setdefault(key, []).append((value, extra))
    return found


def reduce(kind: str, values: list[tuple[float, float]]) -> tuple[float, float]:
    """The one value of all processes, and its extra: a timestamp."""
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
    """The one value as a folded file keeps it: a sum as so many doubles as it takes to lose no bit of it.

    Else what is added later could be rounded otherwise, and a counter go back.
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
    """The exactly rounded sum."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond a double, or infinities of both signs
        return sum(values)
