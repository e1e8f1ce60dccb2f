"""What a roll takes up: made again the same, kept where it is fixed, and carried between two processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import ROOT

from mooring.application.discovery import Target
from mooring.plan import replan
from mooring.plan.plan import plan
from mooring.plan.replan import FIXED, Made
from mooring.resources import read
from mooring.settings.invocation import Invocation
from mooring.settings.profiles import PROFILES
from mooring.settings.resolve import resolve
from mooring.settings.table import ROWS, TLS_SWITCH

PAGE = ROOT / "docs/how-to/roll.md"


def prepare(resolved, environ, _signals):
    folder = Path(environ["MOORING_APP_ROOT"])
    return plan(resolved, read(environ=environ), Target("main", "app", "default", "here", (folder,)), None)


def start(folder: Path, cli=None, **environ: str) -> tuple[Invocation, Made]:
    """A start with these settings in a folder, and what it has made."""
    environ = {"MOORING_APP_ROOT": str(folder), **environ}
    resolved = resolve(cli or {}, environ, folder)
    return Invocation(cli or {}, environ, folder), Made(prepare(resolved, environ, None), resolved)


@pytest.mark.parametrize("reload", ["true", "false"])
@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_new_is_the_same_again_and_survives_the_way_between_processes(tmp_path, profile, reload):
    given, made = start(tmp_path, MOORING_PROFILE=profile, MOORING_RELOAD=reload)
    again = replan.decode(replan.encode(replan.remake(given, prepare, made)))
    assert again == made
    assert replan.changed(made.plan, again.plan) == ()


def test_what_is_fixed_keeps_value_and_origin(tmp_path):
    given, made = start(tmp_path, MOORING_PORT="1234")
    (tmp_path / "mooring.toml").write_text('backlog = 7\ntimeout = 3\nuser = "x"\nhost = "0.0.0.0"\n')
    again = replan.remake(given, prepare, made)
    assert set(again.kept) == {"backlog", "user", "host"}
    assert again.plan.binds == made.plan.binds
    assert again.plan.explained["backlog"] == made.plan.explained["backlog"]
    assert again.plan.settings.timeout == 3
    assert replan.changed(made.plan, again.plan) == ("timeout",)


def test_live_reload_is_neither_turned_on_nor_off(tmp_path):
    (tmp_path / "mooring.toml").write_text("workers = 2\n")
    given, made = start(tmp_path)
    (tmp_path / "mooring.toml").write_text("workers = 3\nreload = true\n")
    again = replan.remake(given, prepare, made)
    assert again.kept == ("reload",)
    assert (again.plan.workers, again.plan.settings.reload) == (3, False)


def test_tls_is_neither_turned_on_nor_off_but_its_files_change(tmp_path):
    given, made = start(tmp_path)
    (tmp_path / "mooring.toml").write_text('tls_certificate = "a"\ntls_key = "b"\n')
    again = replan.remake(given, prepare, made)
    assert not again.plan.tls
    assert {"tls_certificate", "tls_key"} <= set(again.kept)
    given, made = start(tmp_path)
    (tmp_path / "mooring.toml").write_text('tls_certificate = "c"\ntls_key = "d"\n')
    again = replan.remake(given, prepare, made)
    assert (again.kept, again.plan.settings.tls_certificate) == ((), "c")


def test_the_page_names_what_is_fixed():
    assert set(FIXED) <= set(ROWS)
    told = set(re.findall(r"`([a-z_*]+)`", PAGE.read_text()))
    assert {name for name in FIXED if name not in told} == {n for n in FIXED if n.startswith("reload_")}
    section = PAGE.read_text().partition("\n## What needs a restart\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_*]+)`", section))
    assert {name for name in named if name in ROWS} == {n for n in FIXED if not n.startswith("reload_")}


def test_what_is_fixed_is_said_in_the_settings_own_rows():
    assert set(FIXED) == {name for name, row in ROWS.items() if row.restart is True}
    tls = {name for name in ROWS if name.startswith("tls_")}
    assert {name for name, row in ROWS.items() if row.restart == TLS_SWITCH} == tls
    assert {row.restart for row in ROWS.values()} == {True, False, TLS_SWITCH}
