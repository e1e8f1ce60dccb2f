"""What the plan's second revision is told that mooring itself takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mooring import process, supervisor
from mooring.plan import Report
from mooring.supervisor import Supervisor

MEMORY = {"self": 20, "11": 9, "12": 30}


@pytest.mark.parametrize(
    ("engine", "log_writer", "template", "own"),
    [("uvicorn", 0, 0, 20), ("uvicorn", 11, 0, 29), ("uvicorn", 11, 15, 44), ("gunicorn", 11, 0, 59)],
)
def test_all_its_processes_count(monkeypatch, engine, log_writer, template, own):
    told = []
    monkeypatch.setattr(process, "proportional_set_size", lambda pid="self": MEMORY[pid])
    monkeypatch.setattr(supervisor, "fit", lambda plan, report, reserved: told.append(reserved) or plan)
    plan = SimpleNamespace(revision=2, engine=engine)
    templates = SimpleNamespace(memory=lambda: template) if template else None
    crew = SimpleNamespace(plan=plan, access=SimpleNamespace(pid=log_writer), templates=templates)
    shell = SimpleNamespace(plan=plan, crew=crew, post=None, on_fit=lambda _plan: None)
    Supervisor._fit(shell, Report("asgi", "", engine, "main:app", 1), SimpleNamespace(pid=12))
    assert told == [own]
