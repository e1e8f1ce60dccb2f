"""What live reload changes about the stop of the old code."""

from __future__ import annotations

from pathlib import Path

import pytest

from mooring.application.discovery import Target
from mooring.plan.plan import Plan, plan
from mooring.resources import read
from mooring.settings.resolve import resolve


def planned(folder: Path, **environ: str) -> Plan:
    resolved = resolve({}, {"MOORING_APP_ROOT": str(folder), **environ}, folder)
    return plan(resolved, read(environ=environ), Target("main", "app", "default", "here", (folder,)), None)


def test_the_old_code_has_a_second_and_idle_connections_less(tmp_path):
    found = planned(tmp_path, MOORING_RELOAD="true", MOORING_GRACEFUL_TIMEOUT="60")
    assert (found.settings.graceful_timeout, found.settings.drain_idle) == (1.0, 0.25)
    assert found.explained["graceful_timeout"].reason == "the most with live reload"


@pytest.mark.parametrize("more", [{}, {"MOORING_GRACEFUL_TIMEOUT": "0.5", "MOORING_DRAIN_IDLE": "0.1"}])
def test_less_stays(tmp_path, more):
    found = planned(tmp_path, MOORING_RELOAD="true" if more else "false", **more)
    wanted = (0.5, 0.1) if more else (8.0, 1.0)
    assert (found.settings.graceful_timeout, found.settings.drain_idle) == wanted
