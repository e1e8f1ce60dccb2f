"""`mooring install` with conda's forms, from a real channel in a folder; only PyPI is asked for the rest."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from conda_channel import MINOR, PYTHON
from install_stage import PRODUCTION, ROOT, Stage, versions

pytestmark = pytest.mark.timeout(600)

ENVIRONMENT = f"""
name: shop
channels: [CHANNEL, nodefaults]
dependencies:
  - python={MINOR}.*
  - purepkg <1.3
  - builtpkg 2.0
  - pip:
      - -r pip.txt
"""
WHEEL = (
    "https://files.pythonhosted.org/packages/68/5f/447e04e828f47465eeab35b5d408b7ebaaaee207f48b7136c5a7267a30ae/"
    "itsdangerous-2.1.2-py3-none-any.whl"
)
WHEEL_SHA256 = "2c2349112351b88699d8d4b6b075022c0808887cb7ad10069318a8b0bc88db44"


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("install-conda"))


@pytest.fixture(scope="session")
def channel(stage) -> Path:
    return stage.channel()


@pytest.fixture(scope="session")
def subdir(channel) -> str:
    """The name that conda has for this machine, such as linux-64."""
    return next(each.parent.name for each in channel.glob("linux*/repodata.json"))


def _environment(stage: Stage, channel: Path, text: str = ENVIRONMENT, **files: str) -> Path:
    folder = stage.folder(pip__txt="itsdangerous==2.1.2\n", **files)
    (folder / "environment.yml").write_text(text.replace("CHANNEL", channel.as_uri()))
    return folder


def _has(prefix: Path) -> dict[str, str]:
    """The channel's packages that the environment's Python can import, with their versions."""
    found = {}
    for name in ("purepkg", "builtpkg", "devpkg"):
        code = f"import {name}; print({name}.VERSION, {name}.__file__)"
        done = subprocess.run(
            [prefix / "bin" / "python", "-c", code], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            found[name], path = done.stdout.split()
            assert path.startswith(str(prefix))
    return found


def _conda_lock(channel: Path, subdir: str, digest: str = WHEEL_SHA256) -> str:
    """A conda-lock.yml in the form of its version 1; conda-lock itself would need a conda binary."""
    lines = ["version: 1", "metadata:", f"  content_hash: {{{subdir}: {'0' * 64}}}"]
    lines += [f"  channels: [{{url: '{channel.as_uri()}', used_env_vars: []}}]"]
    lines += [f"  platforms: [{subdir}]", "  sources: [environment.yml]", "package:"]

    def locked(name: str, version: str, manager: str, url: str, digest: str, category: str = "main") -> None:
        lines.extend([f"- name: {name}", f"  version: '{version}'", f"  manager: {manager}"])
        lines.extend([f"  platform: {subdir}", "  dependencies: {}", f"  url: {url}"])
        lines.extend([f"  hash: {{sha256: {digest}}}", f"  category: {category}", "  optional: false"])

    packages = [("python", PYTHON, subdir), ("purepkg", "1.2", "noarch"), ("builtpkg", "2.0", subdir)]
    for name, version, where in [*packages, ("devpkg", "2.0", subdir)]:
        file = channel / where / f"{name}-{version}-0.tar.bz2"
        category = "dev" if name == "devpkg" else "main"
        locked(name, version, "conda", file.as_uri(), hashlib.sha256(file.read_bytes()).hexdigest(), category)
    locked("itsdangerous", "2.1.2", "pip", WHEEL, digest)
    return "\n".join(lines) + "\n"


PRODUCTION_CONDA = {"purepkg": "1.2", "builtpkg": "2.0"}


def test_an_environment_yml_with_its_pip_section(stage, channel):
    folder, prefix = _environment(stage, channel), stage.folder() / "env"
    out, err = stage.install("--prefix", str(prefix), cwd=folder)
    assert _has(prefix) == PRODUCTION_CONDA
    assert versions(prefix) == PRODUCTION
    assert f"{prefix} has no mooring" in out
    assert list(prefix.glob("lib/python3.*/site-packages/__pycache__/purepkg.*.pyc"))
    assert (prefix / "conda-meta" / "purepkg-1.2-0.json").is_file()
    assert "mooring: " not in err


def test_a_conda_lock_comes_before_its_environment_yml_and_groups_are_its_categories(stage, channel, subdir):
    folder, prefix = _environment(stage, channel), stage.folder() / "env"
    (folder / "conda-lock.yml").write_text(_conda_lock(channel, subdir))
    out, _ = stage.install("--prefix", str(prefix), cwd=folder)
    assert "conda-lock.yml goes into" in out
    assert "passed over" not in out
    assert _has(prefix) == PRODUCTION_CONDA
    assert versions(prefix) == PRODUCTION
    stage.install("--prefix", str(prefix), "--group", "dev", cwd=folder)
    assert _has(prefix) == PRODUCTION_CONDA | {"devpkg": "2.0"}
    _, err = stage.install("--prefix", str(prefix), "--group", "nope", cwd=folder, code=2)
    assert "it has no category 'nope'; it has dev, main" in err


def test_a_wheel_with_another_hash_is_refused(stage, channel, subdir):
    folder, prefix = stage.folder(), stage.folder() / "env"
    (folder / "conda-lock.yml").write_text(_conda_lock(channel, subdir, "0" * 64))
    _, err = stage.install("--prefix", str(prefix), cwd=folder, code=1)
    assert "hash" in err.lower()
    assert versions(prefix) == {}


def test_a_pixi_lock_and_its_environments(stage, channel):
    folder, prefix = stage.folder(pixi__lock=(channel / "pixi.lock").read_text()), stage.folder() / "env"
    stage.install("--prefix", str(prefix), cwd=folder)
    assert _has(prefix) == PRODUCTION_CONDA
    stage.install("--prefix", str(prefix), "--group", "dev", cwd=folder)
    assert _has(prefix) == PRODUCTION_CONDA | {"devpkg": "2.0"}
    _, err = stage.install("--prefix", str(prefix), "--group", "nope", cwd=folder, code=2)
    assert "it has no environment 'nope'; it has default, dev" in err


def test_a_lock_for_other_machines_is_refused(stage, channel, subdir):
    text = (channel / "pixi.lock").read_text().replace(subdir, "win-64")
    folder = stage.folder(pixi__lock=text)
    _, err = stage.install("--prefix", str(stage.folder() / "env"), cwd=folder, code=2)
    assert f"it is not locked for {subdir}, but for win-64" in err


def test_the_default_is_moorings_own_environment_where_that_is_condas(stage, channel):
    """As on a miniforge base: what is there stays, and so does the Python that mooring runs on."""
    folder = _environment(stage, channel, ENVIRONMENT.replace("  - builtpkg 2.0\n", ""))
    prefix = stage.folder() / "env"
    stage.install("--prefix", str(prefix), cwd=folder)
    python = str(prefix / "bin" / "python")
    constraints = ("--constraints", str(ROOT / "constraints.txt"))
    stage.tool("uv", "pip", "install", "--quiet", "--python", python, *constraints, str(ROOT), cwd=folder)
    other = _environment(stage, channel, "channels: [CHANNEL]\ndependencies: [python=3.99]\n")
    _, err = stage.install(cwd=other, python=python, code=2)
    assert f"it is for Python 3.99.0, but mooring runs here on {MINOR}; name another --prefix" in err
    more = _environment(stage, channel, "channels: [CHANNEL]\ndependencies: [builtpkg]\n")
    out, _ = stage.install(cwd=more, python=python)
    assert f"goes into {prefix} (Python {PYTHON})" in out
    assert "has no mooring" not in out
    assert _has(prefix) == PRODUCTION_CONDA
    assert versions(prefix) == PRODUCTION


def test_a_prefix_is_needed_where_mooring_runs_in_no_conda_environment(stage, channel):
    _, err = stage.install(cwd=_environment(stage, channel), code=2)
    (line,) = err.splitlines()
    assert f"mooring runs in {sys.prefix}, which is no conda environment" in line
    assert "--prefix /opt/conda" in line


def test_what_the_channel_does_not_have_is_said_by_the_solver(stage, channel):
    folder = _environment(stage, channel, "channels: [CHANNEL]\ndependencies: [nowhere]\n")
    _, err = stage.install("--prefix", str(stage.folder() / "env"), cwd=folder, code=1)
    assert "nowhere" in err
    line = err.splitlines()[-1]
    assert line.endswith("environment.yml: py-rattler ended with exit code 1; what it said stands above")
    assert "Traceback" not in err
