"""The profiles' data hold together, and docs/profiles.md says what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import ROOT

from mooring import demo
from mooring.commands.run import config_dump
from mooring.errors import ConfigurationError
from mooring.logs.access.line import formatter
from mooring.settings.profiles import PROFILES, Profile
from mooring.settings.resolve import resolve
from mooring.settings.table import ROWS

ALL = [
    each
    for profile in PROFILES.values()
    for each in (profile, profile.reloading, profile.one_process)
    if each is not None
]
COLUMNS = (
    "hypercorn",
    "conda-starlette",
    "inboard-*",
    "uvicorn-gunicorn*",
    "poetry",
    "meinheld-flask",
    "none",
)
BARE = {variable for row in ROWS.values() for variable in row.bare}


@pytest.mark.parametrize(
    "profile", ALL, ids=lambda profile: f"{profile.name}{'' if profile.reloading else '+'}"
)
def test_every_name_in_a_profile_is_known(profile: Profile) -> None:
    assert set(profile.defaults) <= set(ROWS)
    assert set(profile.dump) <= set(config_dump._KEYS)
    assert set(profile.first_variable) <= set(ROWS)  # their variables may be an image's own: LOGGING_CONF
    assert set(profile.ignored) | set(profile.any_text_is_true) <= BARE
    assert profile.demo == "" or callable(getattr(demo, profile.demo))
    formatter(profile.access_format)


def table() -> dict[str, dict[str, str]]:
    """The table of docs/profiles.md: row, column, cell; `as left` is the cell before."""
    lines = (ROOT / "docs" / "profiles.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    head = [cell.strip("`") for cell in rows[0]]
    start = head.index("hypercorn")
    return {
        row[0]: dict(zip(head[start:], row[start:], strict=True)) for row in rows[2:] if len(row) == len(head)
    }


@pytest.mark.parametrize("column", COLUMNS)
def test_the_documented_defaults_are_those(column: str, tmp_path: Path) -> None:
    name = {"inboard-*": "inboard-base", "uvicorn-gunicorn*": "uvicorn-gunicorn"}.get(column, column)
    settings = resolve({}, {"MOORING_PROFILE": name}, tmp_path).settings
    said = {row: cells[column] for row, cells in table().items()}
    assert said["listens on"] == f"{settings.host}:{settings.port}"
    assert said["keep-alive"] == f"{settings.keep_alive:g} s"
    assert said["timeout"] == (f"{settings.timeout:g} s" if settings.timeout else "none")
    assert said["grace period"] == f"{settings.graceful_timeout:g} s"
    assert said["access log"] == {"-": "stdout", "/dev/stderr": "stderr", None: "off"}[settings.access_log]
    root = PROFILES[name].defaults.get("app_root", "the working folder")
    assert said["application root"] == root
    modules = PROFILES[name].modules
    assert said["application"] == (", then ".join(modules) if modules else "a wider search")


def settings_of(profile: str, folder: Path, **environ: str):  # type: ignore[no-untyped-def]
    return resolve({}, {"MOORING_PROFILE": profile, "MOORING_APP_ROOT": str(folder), **environ}, folder)


@pytest.mark.parametrize(
    ("text", "on"), [("1", True), ("0", True), ("false", True), ("", False), (" ", False)]
)
def test_any_text_turns_reload_on_in_conda_starlette(text: str, on: bool, tmp_path: Path) -> None:
    assert settings_of("conda-starlette", tmp_path, RELOAD=text).settings.reload is on


def test_moorings_own_variable_is_a_flag_everywhere(tmp_path: Path) -> None:
    assert settings_of("conda-starlette", tmp_path, MOORING_RELOAD="false").settings.reload is False
    with pytest.raises(ConfigurationError) as caught:
        settings_of("conda-starlette", tmp_path, MOORING_RELOAD="maybe")
    assert str(caught.value).count("MOORING_RELOAD") == 1


@pytest.mark.parametrize(
    "profile", ["hypercorn", "conda-starlette", "inboard-fastapi", "uvicorn-gunicorn-fastapi"]
)
def test_live_reload_ignores_bind_and_says_so(profile: str, tmp_path: Path) -> None:
    resolved = settings_of(profile, tmp_path, MOORING_RELOAD="1", BIND="127.0.0.1:1", PORT="2")
    assert resolved.settings.bind is None
    assert resolved.warnings == (f"BIND has no effect with live reload in the profile {profile}",)
    assert resolved.profile.dump == ()
    assert settings_of(profile, tmp_path, BIND="127.0.0.1:1").settings.bind is not None
    own = settings_of(profile, tmp_path, MOORING_RELOAD="1", MOORING_BIND="127.0.0.1:1")
    assert own.settings.bind is not None
    assert own.warnings == ()


@pytest.mark.parametrize("profile", ["poetry", "meinheld-flask", "none"])
def test_elsewhere_live_reload_listens_at_bind(profile: str, tmp_path: Path) -> None:
    assert settings_of(profile, tmp_path, RELOAD="1", BIND="127.0.0.1:1").settings.bind is not None


def test_an_access_log_that_is_asked_for_is_written_with_live_reload_too(tmp_path: Path) -> None:
    assert settings_of("hypercorn", tmp_path, MOORING_RELOAD="1").settings.access_log is None
    assert settings_of("hypercorn", tmp_path, MOORING_RELOAD="1", ACCESS_LOG="-").settings.access_log == "-"
