"""What is refused of clients: every one is counted, and a flood has few lines."""

from __future__ import annotations

import threading

import pytest

from mooring.instrument import refusals
from mooring.instrument.refusals import Refusals
from mooring.scoreboard.row import REFUSALS, REFUSED, Row

LINES = refusals._LINES


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(refusals, "monotonic", made)
    return made


def lines(said):
    """A `warn` for Refusals, which keeps its lines in a list."""
    return lambda line, **_fields: said.append(line)


def test_each_is_counted_by_its_reason_and_named_with_the_peer():
    row, said = Row(), []
    refuse = Refusals(lambda: row, lines(said))
    refuse("head_timeout", ("203.0.113.9", 4711))
    refuse("body_size", ["::1", 1, 0, 0], "MOORING_MAX_BODY=1M")
    refuse("malformed", None, "two\nHosts")
    assert said == [
        "refused 203.0.113.9: head timeout",
        "refused ::1: body size: MOORING_MAX_BODY=1M",
        "refused a client: malformed: two\\nHosts",
    ]
    counted = {reason: row.counts()[REFUSED + number] for number, reason in enumerate(REFUSALS)}
    assert {reason: count for reason, count in counted.items() if count} == {
        "head_timeout": 1, "body_size": 1, "malformed": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("clock")
def test_a_flood_is_counted_and_has_few_lines(clock: Clock):
    row, said = Row(), []
    refuse = Refusals(lambda: row, lines(said))
    for _ in range(1000):
        refuse("connections", "unix")
    assert said == ["refused unix: connections"] * LINES
    refuse.tell()
    refuse.tell()
    clock.now += 61
    refuse("connections", "unix")
    assert said[LINES:] == [f"refused {1000 - LINES} more since the last line", "refused unix: connections"]
    assert row.counts()[REFUSED + REFUSALS.index("connections")] == 1001


def test_how_many_had_no_line_is_said_without_a_further_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refusals, "_PERIOD", 0.2)
    row, said, told = Row(), [], threading.Event()

    def warn(line, **fields):
        said.append((line, fields))
        if fields.get("refused"):
            told.set()

    refuse = Refusals(lambda: row, warn)
    for _ in range(LINES + 2):
        refuse("malformed", ("::1", 1), "x" * 1000)
    assert told.wait(30)
    assert said[-1] == ("refused 2 more since the last line", {"refused": 2})
    assert said[0][1] == {"reason": "malformed", "peer": "::1", "detail": "x" * 200}


def test_the_cells_are_apart_from_all_others():
    assert REFUSED + len(REFUSALS) <= 48 < refusals.Row().cells.nbytes
