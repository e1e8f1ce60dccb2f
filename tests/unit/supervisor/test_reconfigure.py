"""The process that resolves a roll's settings: when it is ended, and that nothing waits or spins for it."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from mooring.supervisor import reconfigure
from mooring.supervisor.reconfigure import LONGEST, Reconfigure
from mooring.system import process


def test_a_process_that_survives_its_kill_makes_no_loop_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    killed: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(process, "spawn", lambda *_: 2**22 + 1)
    monkeypatch.setattr(process, "send", lambda *_: None)
    monkeypatch.setattr(process, "kill_group", lambda _pid: killed.append(now))
    supervisor: Any = SimpleNamespace(fleet=SimpleNamespace(outcome=None))
    part = Reconfigure(supervisor, None, None, None)  # type: ignore[arg-type]
    part.ask()
    for _ in range(20):
        due = part.next_deadline()
        assert due is not None
        assert due > now, "the loop would not wait"
        now = due
        part.expire()
    assert killed[0] == 1000.0 + LONGEST + reconfigure._PATIENCE
    assert len(killed) > 2  # again and again
    assert not part.busy()  # a stop does not wait for it
    os.close(part._resolver.channel)
