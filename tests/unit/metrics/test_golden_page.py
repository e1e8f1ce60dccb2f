"""The metrics page, byte for byte: scrapers, dashboards and alerts depend on names, types, labels and help.

A metric that is added or changed on purpose changes the pages in golden/ too. Run this file to write them
anew, then read the difference (`git diff tests/unit/metrics/golden`): nothing else may have changed.

    .venv/bin/python tests/unit/metrics/test_golden_page.py
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mooring.metrics.prometheus import Collected, render
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
)

GOLDEN = Path(__file__).parent / "golden"
NOTHING = dict.fromkeys(range(HISTOGRAM + BUCKETS), 0.0)


def totals(cells: dict[int, float]) -> tuple[float, ...]:
    return tuple({**NOTHING, **cells}.values())


MINIMAL: dict[str, Any] = {
    "totals": totals({}),
    "in_flight": 0,
    "websockets": 0,
    "workers": {},
    "exits": {},
    "rolls": {},
    "memory": {},
    "generation": 1,
    "version": "1.0",
    "engine": "uvicorn",
    "interface": "asgi",
    "started": 0.0,
}
FULL: dict[str, Any] = {
    "totals": totals(
        {base + digit: 100.0 * digit + base for base in METHOD_BASE.values() for digit in range(1, 6)}
        | {HISTOGRAM + bucket: float(bucket + 1) for bucket in range(BUCKETS)}
        | {DURATIONS: 12345.678, DROPPED: 3.0, RAISED: 4.0, REJECTED: 5.0, TIMED_OUT: 6.0}
        | {REFUSED + number: number + 7.0 for number in range(len(REFUSALS))}
    ),
    "in_flight": 17,
    "websockets": 2,
    "workers": {"starting": 1, "ready": 4, "draining": 2, "killed": 0},
    "exits": {"drained": 8, "out_of_memory": 1},
    "rolls": {"rolled": 2, "failed": 1},
    "memory": {0: 80 * 2**20, 1: 81 * 2**20, 10: 1},
    "generation": 3,
    "version": "1.0",
    "engine": "granian",
    "interface": "wsgi",
    "started": 1_764_000_000.123,
    "cpu_cores": 1.5,
    "throttled": 0.25,
    "memory_limit": 2**30,
    "app_metrics_up": True,
}
HOSTILE = 'a"b\\c\nd'
GARBAGE: dict[str, Any] = {
    "totals": totals(
        {
            METHOD_BASE["GET"] + 2: math.inf,
            METHOD_BASE["GET"] + 4: -1.0,
            METHOD_BASE["other"] + 1: math.nan,
            METHOD_BASE["WEBSOCKET"] + 5: 0.5,
            METHOD_BASE["POST"]: 9.0,  # a cell of no status
            METHOD_BASE["POST"] + 6: 9.0,
            HISTOGRAM: 1e308,
            HISTOGRAM + 1: 1e308,
            DURATIONS: 1e308,
            DROPPED: -0.0,
            RAISED: 2.0**53,
            REJECTED: -math.inf,
            TIMED_OUT: math.nan,
        }
    ),
    "in_flight": 2**60,
    "websockets": -1,
    "workers": {HOSTILE: 1, "": 2},
    "exits": {HOSTILE: 2**53},
    "rolls": {"{}": 0, "%s{0}": 1},
    "memory": {-1: 2**53 - 1},
    "generation": 0,
    "version": HOSTILE,
    "engine": "",
    "interface": "{engine}%d",
    "started": -1.5,
    "cpu_cores": math.inf,
    "throttled": math.nan,
    "memory_limit": 0,
    "app_metrics_up": False,
}
CASES = {"full": FULL, "minimal": MINIMAL, "garbage": GARBAGE}


def page(name: str) -> str:
    return render(Collected(**CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_as_it_was(name: str) -> None:
    assert page(name) == (GOLDEN / f"{name}.txt").read_text()


if __name__ == "__main__":
    for each in CASES:
        (GOLDEN / f"{each}.txt").write_text(page(each))
