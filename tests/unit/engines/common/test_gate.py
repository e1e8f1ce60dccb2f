from __future__ import annotations

from mooring.engines.common.gate import Idle


def test_idle_counts_from_the_first_look():
    idle = Idle(1.0)
    assert idle.expired(100.0, [("a", "m")]) == []
    assert idle.expired(100.9, [("a", "m")]) == []
    assert idle.expired(101.0, [("a", "m")]) == ["a"]


def test_whoever_acts_or_is_busy_begins_anew():
    idle = Idle(1.0)
    idle.expired(0.0, [("acts", 1), ("busy", 1), ("idle", 1)])
    idle.expired(0.5, [("acts", 2), ("busy", None), ("idle", 1)])
    assert idle.expired(1.0, [("acts", 2), ("busy", 1), ("idle", 1)]) == ["idle"]
    assert idle.expired(1.5, [("acts", 2), ("busy", 1)]) == ["acts"]
    assert idle.expired(2.0, [("busy", 1)]) == ["busy"]
