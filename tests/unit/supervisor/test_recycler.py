"""When a worker is due: limits from a plan, and the pure decision."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mooring.settings import parsers
from mooring.supervisor.recycle import Limits, why

NONE = Limits(0, 0, 0.0, 0)


def test_without_limits_nobody_is_due() -> None:
    assert not why(NONE, 1, 10**9, 10.0**9)


def test_requests_with_a_spread_of_their_own_for_each_worker() -> None:
    most = NONE._replace(requests=100, spread=50)
    due = [next(n for n in range(200) if why(most, serial, n, 0.0)) for serial in range(32)]
    assert min(due) == 100
    assert max(due) < 150
    assert len(set(due)) > 24
    assert all(abs(a - b) > 5 for a, b in pairwise(due))  # neighbours don't go together
    assert why(most, 0, 117, 0.0) == "117 requests"


def test_age_up_to_a_tenth_earlier() -> None:
    most = NONE._replace(age=100.0)
    due = [next(n for n in range(200) if why(most, serial, 0, float(n))) for serial in range(32)]
    assert (min(due) >= 90, max(due)) == (True, 100)
    assert len(set(due)) > 5
    assert why(most, 0, 0, 100.4) == "100 s old"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("256M", 256 * 2**20),
        ("256MiB", 256 * 2**20),
        ("256 mb", 256 * 2**20),
        ("1.5G", 3 * 2**29),
        ("1048576", 2**20),
        ("25%", "25%"),
        ("12.50 %", "12.5%"),
    ],
)
def test_a_size_or_a_share(text: str, value: int | str) -> None:
    assert parsers.memory(text) == value


@pytest.mark.parametrize(
    "text", ["", "M", "1K", "-5M", "0", "5X", "nan", "1e999", "0%", "101%", "%", "9999999999T"]
)
def test_what_is_neither(text: str) -> None:
    with pytest.raises(ValueError, match="a size of at least 1M such as 256M"):
        parsers.memory(text)
