"""Whether a worker has its most connections."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from mooring.engines.common.full import Full


def test_it_is_told_once_and_until_a_tenth_is_free(caplog):
    told: list[bool] = []
    serving: Any = SimpleNamespace(plan=SimpleNamespace(max_connections=20), full=told.append)
    full = Full(serving)
    with caplog.at_level(logging.WARNING, "mooring"):
        for count in (20, 21, 22, 20, 19, 21):
            full(count)
        assert told == [True]
        full(18)
        assert told == [True, False]
        full(21)
    assert told == [True, False, True]
    assert len([each for each in caplog.records if "most connections (20)" in each.getMessage()]) == 1
