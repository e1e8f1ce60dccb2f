"""Which declaration counts, what it says of itself, and the commands that follow; nothing is run."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from checkout import ROOT

from mooring.commands.install.agreement import parse
from mooring.commands.install.finding import ORDER, find
from mooring.commands.install.plans import Selection, steps
from mooring.commands.install.target import Environment
from mooring.commands.install.toolbox import LOCKS, cache_folder, label, pinned
from mooring.commands.install.versions import satisfies
from mooring.errors import ConfigurationError

CONTENT = {
    "uv.lock": 'requires-python = ">=3.11"\n',
    "poetry.lock": '[metadata]\npython-versions = "^3.11"\n',
    "pdm.lock": '[metadata]\ngroups = ["default", "dev", "docs"]\n'
    '[[metadata.targets]]\nrequires_python = ">=3.11"\n',
    "pylock.toml": 'requires-python = ">=3.11"\ndependency-groups = ["default", "docs"]\n'
    'default-groups = ["default"]\n',
    "pyproject.toml": '[project]\ndependencies = []\nrequires-python = ">=3.11"\n',
    "Pipfile.lock": '{"_meta": {"requires": {"python_version": "3.11"}}, "default": {}, "docs": {}}',
}
PYTHONS = {"poetry.lock": "^3.11", "Pipfile.lock": "==3.11.*"}
NAMES = [form.name for form in ORDER]


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text(CONTENT.get(name, ""))
    return folder


@pytest.mark.parametrize("at", range(len(NAMES)), ids=NAMES)
def test_the_first_in_the_stated_order_wins_and_the_others_are_named(tmp_path, at):
    found = find(fill(tmp_path, "pyproject.toml", *NAMES[at:]))
    if NAMES[at] in ("Pipfile.lock", "conda-lock.yml", "environment.yml", "pixi.lock"):
        (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")  # declares nothing
        found = find(tmp_path)
    assert found.path == tmp_path / NAMES[at]
    sources = found.form.sources
    assert list(found.passed_over) == [name for name in NAMES[at + 1 :] if name not in sources]


def test_the_order_is_the_documented_one():
    page = ROOT / "docs" / "how-to" / "install.md"
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| `")]
    assert [name.strip("`") for name in rows if name.strip("`") in NAMES] == NAMES


@pytest.mark.parametrize("name", CONTENT)
def test_the_pythons_that_it_is_for(tmp_path, name):
    fill(tmp_path, "pyproject.toml", name)
    assert find(tmp_path, name).facts.pythons == PYTHONS.get(name, ">=3.11")


def test_a_file_can_be_chosen(tmp_path):
    fill(tmp_path, "uv.lock", "pyproject.toml", "requirements.txt", "environment.yaml")
    assert find(tmp_path, "requirements.txt").path.name == "requirements.txt"
    assert find(tmp_path, "environment.yaml").path.name == "environment.yaml"
    with pytest.raises(ConfigurationError, match=r"has no nope\.txt to install from; known are uv\.lock"):
        find(tmp_path, "nope.txt")


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pdm.lock"])
def test_what_a_lock_needs_beside_it(tmp_path, name):
    with pytest.raises(ConfigurationError, match=r"needs pyproject\.toml beside it; copy both"):
        find(fill(tmp_path, name))


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "Pipfile.lock"])
def test_what_is_no_lock_is_one_line(tmp_path, name):
    fill(tmp_path, "pyproject.toml")
    (tmp_path / name).write_text("<<<<<<< HEAD\n")
    with pytest.raises(ConfigurationError, match=rf"{name}: not ") as caught:
        find(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(ConfigurationError, match="no such folder"):
        find(tmp_path / "nope")


HERE = Environment(Path("/env"), Path("/env/bin/python"), "3.12.1", None, own=True, conda=True)


def commands(folder: Path, name: str, *groups: str, extras: tuple[str, ...] = ()) -> list[str]:
    found = find(fill(folder, "pyproject.toml", name), name)
    return [str(step) for step in steps(found, HERE, Selection(groups, extras), Path("/tmp"))]


@pytest.mark.parametrize("name", NAMES)
def test_every_form_has_its_commands(tmp_path, name):
    plan = commands(tmp_path, name)
    assert plan[0].split()[0] == find(tmp_path, name).form.tool
    assert "/env" in plan[-1]


def test_groups_as_each_tool_wants_them(tmp_path):
    assert "--only main,docs " in commands(tmp_path, "poetry.lock", "docs")[0]
    assert "--group docs --without dev " in commands(tmp_path, "pdm.lock", "docs")[0]
    assert "--prod " in commands(tmp_path, "pdm.lock")[0]
    assert "--group default --group docs " in commands(tmp_path, "pylock.toml", "docs")[0]
    assert "--categories packages docs " in commands(tmp_path, "Pipfile.lock", "docs")[0]
    assert f"--group {tmp_path}/pyproject.toml:docs" in commands(tmp_path, "pyproject.toml", "docs")[0]


@pytest.mark.parametrize(
    "name", ["pdm.lock", "pylock.toml", "Pipfile.lock", "requirements.txt", "environment.yml"]
)
def test_what_the_tool_would_pass_over_in_silence_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match=rf"--group nope: .*{name} has no such group"):
        commands(tmp_path, name, "nope")
    with pytest.raises(ConfigurationError, match=rf"--extra nope: .*{name} has no such extra"):
        commands(tmp_path, name, extras=("nope",))


@pytest.mark.parametrize(
    ("ranges", "version", "answer"),
    [
        ("", "3.12.1", True),
        ("*", "3.12.1", True),
        (">=3.11", "3.11", True),
        (">=3.11,<3.13", "3.13.0", False),
        (">=3.11, <3.13, !=3.12.*", "3.12.4", False),
        ("==3.12.*", "3.12.4", True),
        ("==3.12.*", "3.11.4", False),
        ("==3.12", "3.12.0", True),
        ("==3.12", "3.12.1", False),
        ("~=3.11", "3.13.1", True),
        ("~=3.11.2", "3.12.0", False),
        ("~3.11", "3.12.0", False),
        ("~3", "3.12.0", True),
        ("^3.11", "3.14.0", True),
        ("^3.11", "4.0", False),
        ("^0.4.1", "0.5", False),
        ("<3.11 || >=3.12", "3.11.9", False),
        (">=3.9 || nonsense", "3.11.9", True),
        ("nonsense", "3.11.9", None),
        ("nonsense, <3", "3.11.9", False),
        (">=0.54,<0.55", "0.54.3.post1", True),
        (">=1", "what", None),
    ],
)
def test_ranges(ranges, version, answer):
    assert satisfies(ranges, version) is answer


def test_all_that_mooring_requires_can_be_compared():
    for line in importlib.metadata.requires("mooring") or ():
        name, ranges, optional = parse(line)
        assert name
        assert satisfies(ranges, "999") is not None
        assert optional == ("extra ==" in line)


def test_every_tool_is_pinned_with_hashes_and_said(tmp_path):
    for tool in {form.tool for form in ORDER}:
        assert pinned(tool)[0].isdigit()
        text = (LOCKS / f"{tool}.txt").read_text()
        assert text.count("==") <= text.count("--hash=sha256:")
    assert label("poetry", {}) == f"poetry {pinned('poetry')}"
    (tmp_path / "uv").touch(mode=0o755)
    assert label("uv", {"PATH": str(tmp_path)}) == str(tmp_path / "uv")


def test_downloads_are_kept_only_where_no_image_would_carry_them(tmp_path):
    assert cache_folder("/given", {}, tmp_path) == Path("/given")
    assert cache_folder("", {"HOME": str(tmp_path)}, tmp_path / "s") == tmp_path / "s" / "cache"
    assert cache_folder("", {"XDG_CACHE_HOME": "/proc"}, tmp_path) == Path("/proc")  # a mount
