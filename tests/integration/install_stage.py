"""What the tests of `mooring install` share: the pinned tools, their cache, fresh environments.

The locks are made by the tools themselves, with packages from PyPI: production needs itsdangerous 2.1.2, the
group `dev` six, the group `jobs` iniconfig, the extra `more` toml, none of them at its newest version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mooring.commands.install.toolbox import Toolbox, environment

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = ["itsdangerous==2.1.2"]
[project.optional-dependencies]
more = ["toml==0.10.1"]
[dependency-groups]
dev = ["six==1.16.0"]
jobs = ["iniconfig==2.0.0"]
"""
PRODUCTION = {"itsdangerous": "2.1.2"}
JOBS = {"iniconfig": "2.0.0"}
MORE = {"toml": "0.10.1"}
PACKAGES = ("itsdangerous", "six", "iniconfig", "toml")
_FOREIGN = ("UV_", "PIP_REQUIRE", "VIRTUAL_ENV", "MOORING_", "PYTHON", "POETRY_", "PDM_", "PIPENV_", "XDG_")
_VERSIONS = (
    "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
)


class Stage:
    """A folder with the tools and their cache, for all tests of a file."""

    def __init__(self, base: Path) -> None:
        self.base, self.cache = base, base / "cache"
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        self.environ["HOME"] = str(base)
        self.environ["PATH"] = os.pathsep.join(
            folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "uv").exists()
        )
        self._tools = base / "scratch"
        self._tools.mkdir()
        self.tool("uv", "--version", cwd=base)
        self.with_uv = f"{self._tools / 'tools' / 'uv' / 'bin'}{os.pathsep}{self.environ['PATH']}"
        self._count = 0

    def tool(self, name: str, *args: str, cwd: Path, **more: str) -> None:
        """Run a pinned tool."""
        environ = environment(self.environ, self._tools, self.cache)
        if (self._tools / "tools" / "uv").exists():
            environ["PATH"] = self.with_uv
        Toolbox(environ, self._tools, cwd / "a.lock").run(name, args, **more)

    def folder(self, **files: str) -> Path:
        """A fresh folder with these files; `__` in a name is a dot."""
        self._count += 1
        path = self.base / f"folder-{self._count}"
        path.mkdir()
        for name, text in files.items():
            (path / name.replace("__", ".")).write_text(text)
        return path

    def channel(self) -> Path:
        """A fresh conda channel (conda_channel.py)."""
        folder = self.folder()
        self.tool("py-rattler", str(Path(__file__).with_name("conda_channel.py")), str(folder), cwd=folder)
        return folder

    def rattler(self) -> Path:
        """The folder that py-rattler, once it was fetched, is imported from."""
        return next((self._tools / "tools" / "py-rattler").glob("lib/python3.*/site-packages"))

    def venv(self, *packages: str) -> Path:
        """A fresh virtual environment, with these installed."""
        path = self.folder() / "venv"
        self.tool("uv", "venv", "--quiet", "--python", sys.executable, str(path), cwd=self.base)
        if packages:
            args = ("pip", "install", "--quiet", "--python", str(path / "bin" / "python"), *packages)
            self.tool("uv", *args, cwd=self.base)
        return path

    def install(
        self, *args: str, cwd: Path, code: int = 0, python: str = sys.executable, uv: bool = True, **more: str
    ) -> tuple[str, str]:
        """Run `mooring install ARGS`; returns stdout and stderr. `uv`: whether it is on PATH."""
        environ = {**self.environ, **({"PATH": self.with_uv} if uv else {}), **more}
        command = [python, "-m", "mooring", "install", "--cache-dir", str(self.cache), *args]
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=500)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr


def versions(prefix: Path) -> dict[str, str]:
    """The distributions that the environment's own Python finds, of those that the tests install."""
    command = [prefix / "bin" / "python", "-c", _VERSIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: version for name, version in json.loads(done.stdout).items() if name in PACKAGES}
