"""What the plan's second revision is told that mooring itself takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mooring.plan.plan import Report
from mooring.supervisor.workers import Workers
from mooring.system import process

MEMORY = {"self": 20, "11": 9, "12": 30}


@pytest.mark.parametrize(
    ("engine", "log_writer", "template", "own"),
    [("uvicorn", 0, 0, 20), ("uvicorn", 11, 0, 29), ("uvicorn", 11, 15, 44), ("gunicorn", 11, 0, 59)],
)
def test_all_its_processes_count(monkeypatch, engine, log_writer, template, own):
    monkeypatch.setattr(process, "proportional_set_size", lambda pid="self": MEMORY[pid])
    spawner = SimpleNamespace(memory=lambda: template)
    workers = SimpleNamespace(access=SimpleNamespace(pid=log_writer), spawner=spawner)
    handle = SimpleNamespace(pid=12)
    assert Workers.reserved(workers, Report("asgi", "", engine, "main:app", 1), handle) == own
