"""`mooring install` with each tool's own lock, made here by that tool, from PyPI, in fresh environments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from install_stage import JOBS, MORE, PACKAGES, PRODUCTION, PYPROJECT, ROOT, Stage, versions

from mooring.commands.install.finding import ORDER

pytestmark = pytest.mark.timeout(600)

# Poetry asks PyPI's JSON API first, which not every mirror has; a source of its own is read as PEP 503 says.
POETRY = """
[tool.poetry]
package-mode = false
[[tool.poetry.source]]
name = "simple"
url = "https://pypi.org/simple/"
priority = "primary"
"""
PIPFILE = """
[[source]]
url = "https://pypi.org/simple"
verify_ssl = true
name = "pypi"
[packages]
itsdangerous = "==2.1.2"
[dev-packages]
six = "==1.16.0"
[jobs]
iniconfig = "==2.0.0"
"""
PYLOCK = ("export", "--quiet", "--no-dev", "--format", "pylock.toml", "--output-file", "pylock.toml")


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("install"))


@pytest.fixture(scope="session")
def wheel(stage) -> str:
    """mooring, built: what is installed beside an application."""
    folder = stage.folder()
    stage.tool("uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT), cwd=folder)
    return str(next(folder.glob("*.whl")))


def _project(stage: Stage, form: str) -> Path:
    """An application's folder with a declaration of this form, locked by its own tool."""
    match form:
        case "uv.lock":
            folder = stage.folder(pyproject__toml=PYPROJECT)
            stage.tool("uv", "lock", "--quiet", cwd=folder)
        case "poetry.lock":
            folder = stage.folder(pyproject__toml=PYPROJECT + POETRY)
            stage.tool("poetry", "lock", "--quiet", cwd=folder)
        case "pdm.lock":
            folder = stage.folder(pyproject__toml=PYPROJECT)
            stage.tool("pdm", "lock", "--quiet", "--group", ":all", cwd=folder)
        case "pylock.toml":
            folder = stage.folder(pyproject__toml=PYPROJECT)
            stage.tool("uv", *PYLOCK, cwd=folder)
            (folder / "pyproject.toml").unlink()
            (folder / "uv.lock").unlink()
        case "requirements.txt":
            folder = stage.folder(requirements__txt="itsdangerous==2.1.2\n")
        case "pyproject.toml":
            folder = stage.folder(pyproject__toml=PYPROJECT)
        case "Pipfile.lock":
            folder = stage.folder(Pipfile=PIPFILE)
            stage.tool("pipenv", "lock", "--quiet", cwd=folder)
            (folder / "Pipfile").unlink()  # the lock says it all
    return folder


@pytest.fixture(scope="session")
def projects(stage):
    """Each form's folder, made once."""
    made: dict[str, Path] = {}

    def project(form: str) -> Path:
        if form not in made:
            made[form] = _project(stage, form)
        return made[form]

    return project


FORMS = [form.name for form in ORDER if form.tool != "py-rattler"]


@pytest.mark.parametrize("form", FORMS)
def test_production_is_installed_as_locked_and_nothing_else(stage, projects, form):
    folder, venv = projects(form), stage.venv()
    before = sorted(folder.iterdir())
    out, _ = stage.install("--prefix", str(venv), cwd=folder)
    assert f"{folder / form} goes into {venv}" in out
    assert versions(venv) == PRODUCTION
    assert sorted(folder.iterdir()) == before  # a bind mount is read only


WITH_GROUPS = [form for form in FORMS if form not in ("requirements.txt", "pylock.toml")]


@pytest.mark.parametrize("form", WITH_GROUPS)
def test_groups_and_extras_are_added_by_name(stage, projects, form):
    venv, has_extras = stage.venv(), form != "Pipfile.lock"
    extra = ("--extra", "more") if has_extras else ()
    stage.install("--prefix", str(venv), "--group", "jobs", *extra, cwd=projects(form))
    assert versions(venv) == PRODUCTION | JOBS | (MORE if has_extras else {})


def test_an_extra_alone_brings_no_development_group_of_pdms(stage, projects):
    venv = stage.venv()
    stage.install("--prefix", str(venv), "--extra", "more", cwd=projects("pdm.lock"))
    assert versions(venv) == PRODUCTION | MORE


@pytest.mark.parametrize("option", ["--group", "--extra"])
@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_group_or_extra_fails_and_installs_nothing(stage, projects, form, option):
    venv = stage.venv()
    code = 1 if form == "poetry.lock" else 2
    _, err = stage.install("--prefix", str(venv), option, "nope", cwd=projects(form), code=code)
    assert "nope" in err
    assert err.splitlines()[-1].startswith("mooring: ")
    assert versions(venv) == {}


def test_a_pylock_with_groups_and_extras(stage):
    """One file for production and development, as pdm can write it."""
    folder = stage.folder(pyproject__toml=PYPROJECT)
    stage.tool("pdm", "lock", "--quiet", "--group", ":all", cwd=folder, PDM_LOCK_FORMAT="pylock")
    for args, expected in (
        ((), PRODUCTION),
        (("--group", "jobs"), PRODUCTION | JOBS),
        (("--extra", "more"), PRODUCTION | MORE),
    ):
        venv = stage.venv()
        stage.install("--prefix", str(venv), *args, cwd=folder)
        assert versions(venv) == expected


def test_the_default_environment_is_moorings_own_and_keeps_what_it_has(stage, projects, wheel):
    """Without uv on PATH: pip fetches it, and it is not left behind."""
    venv = stage.venv(wheel, "six==1.15.0", "pip")
    out, _ = stage.install(cwd=projects("uv.lock"), python=str(venv / "bin" / "python"), uv=False)
    assert f"goes into {venv} (Python " in out
    assert versions(venv) == PRODUCTION | {"six": "1.15.0"}
    assert not list(venv.rglob("bin/uv"))
    packages = next(venv.glob("lib/python3.*/site-packages"))
    assert list(packages.glob("itsdangerous/__pycache__/*.pyc"))


def test_an_engine_that_mooring_cannot_work_with_is_said_in_one_line(stage, wheel):
    folder = stage.folder(requirements__txt="uvicorn==0.30.6\n")
    venv = stage.venv(wheel)
    python = str(venv / "bin" / "python")
    _, err = stage.install(cwd=folder, python=python, code=2)
    line = err.splitlines()[-1]
    assert line.startswith(
        f"mooring: {folder / 'requirements.txt'} is installed, but mooring cannot serve with it"
    )
    assert "uvicorn" in line
    assert "but that is 0.30.6 now" in line
    _, err = stage.install("--any-version", cwd=folder, python=python)
    assert "mooring: warning: " in err.splitlines()[-1]
    assert "0.30.6" in err.splitlines()[-1]


def test_a_python_that_the_lock_excludes_is_said_in_one_line(stage, projects):
    for form in ("uv.lock", "poetry.lock", "pdm.lock"):
        text = (projects(form) / form).read_text()
        assert text.count('">=3.11"') == 1
        folder = stage.folder(pyproject__toml=(projects(form) / "pyproject.toml").read_text())
        (folder / form).write_text(text.replace('">=3.11"', '">=3.99"'))
        _, err = stage.install(cwd=folder, code=2)
        (line,) = err.splitlines()
        assert line == (
            f"mooring: {folder / form} is for Python >=3.99, but {sys.prefix} has {sys.version.split()[0]}"
        )


def test_a_tool_that_fails_speaks_for_itself(stage):
    folder = stage.folder(requirements__txt="this-is-no-package-of-anybody==0\n")
    _, err = stage.install("--prefix", str(stage.venv()), cwd=folder, code=1)
    assert "this-is-no-package-of-anybody" in err
    assert err.splitlines()[-1] == (
        f"mooring: {folder / 'requirements.txt'}: uv ended with exit code 1; what it said stands above"
    )


def test_a_lock_that_is_older_than_its_project_is_refused_by_poetry(stage, projects):
    lock, project = projects("poetry.lock") / "poetry.lock", projects("poetry.lock") / "pyproject.toml"
    folder = stage.folder(poetry__lock=lock.read_text())
    (folder / "pyproject.toml").write_text(
        project.read_text().replace("itsdangerous==2.1.2", "itsdangerous>=2.2")
    )
    _, err = stage.install("--prefix", str(stage.venv()), cwd=folder, code=1)
    assert "changed significantly" in err


def test_nothing_declared_names_the_folder_and_what_was_looked_for(stage):
    folder = stage.folder(pyproject__toml="[tool.ruff]\nline-length = 100\n")
    _, err = stage.install(cwd=folder, code=2)
    (line,) = err.splitlines()
    assert line.startswith(f"mooring: {folder} declares no dependencies: looked for uv.lock, poetry.lock, ")
    for form in ORDER:
        assert form.name in line


def test_a_dry_run_says_in_one_line_each_what_it_would_do(stage, projects):
    folder = projects("poetry.lock")
    (folder / "requirements.txt").write_text("six\n")
    try:
        out, err = stage.install("--dry-run", cwd=folder, uv=False)
    finally:
        (folder / "requirements.txt").unlink()
    first, export, install = out.splitlines()
    assert "poetry.lock goes into" in first
    assert first.endswith("; passed over, as later in the order: requirements.txt")
    assert "poetry 2." in export
    assert "poetry export " in export
    assert "uv pip install " in install
    assert err == ""


def test_the_folder_is_the_application_root_or_the_one_that_is_named(stage, projects):
    folder = projects("requirements.txt")
    for args, more in (((str(folder),), {}), ((), {"MOORING_APP_ROOT": str(folder)})):
        out, _ = stage.install("--dry-run", *args, cwd=stage.folder(), **more)
        assert str(folder / "requirements.txt") in out


def test_what_is_installed_is_none_of_moorings_own(projects):
    """The tests would see nothing, if mooring brought these packages."""
    import importlib.metadata

    names = {line.split(">")[0].split("=")[0] for line in importlib.metadata.requires("mooring") or ()}
    assert not names & set(PACKAGES)
