"""Where environments are: the root (base), and those with names, in the layout that conda gives them.

Reads conda-meta as it lies on the disk, so that what only looks needs no py-rattler.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mooring.errors import ConfigurationError

# The build of the record by which base's Python is the image's own (layout.py).
STAND_IN = "image_0"


@dataclass(frozen=True)
class Places:
    """The root of all environments, the process's environment variables, and a folder of a change's own."""

    root: Path
    environ: Mapping[str, str]
    scratch: Path = Path(os.devnull)

    @property
    def homes(self) -> list[Path]:
        """The folders of environments with names; the first is for new ones."""
        asked = self.environ.get("CONDA_ENVS_PATH") or self.environ.get("CONDA_ENVS_DIRS") or ""
        named = [Path(each).expanduser().absolute() for each in asked.split(os.pathsep) if each]
        return [*named, self.root / "envs"]

    @property
    def downloads(self) -> Path:
        """Where downloads are kept while a command runs; longer only if this is a mount, or asked for."""
        asked = (self.environ.get("CONDA_PKGS_DIRS") or "").split(",")[0]
        return Path(asked).expanduser().absolute() if asked else self.root / "pkgs"

    @property
    def kept(self) -> Path:
        """The folder that a change downloads to: images get no cache by mistake."""
        stays = os.path.ismount(self.downloads) or bool(self.environ.get("CONDA_PKGS_DIRS"))
        return self.downloads if stays else self.scratch

    @property
    def home(self) -> Path:
        """The user's home."""
        return Path(self.environ.get("HOME") or "~").expanduser()

    def prefix(self, name: str = "", path: str = "") -> Path:
        """The prefix of the environment that is named, else of the active one, else of base."""
        if name and path:
            raise ConfigurationError("-n NAME and -p PATH exclude each other")
        if path:
            return Path(path).expanduser().absolute()
        if name in ("base", "root"):
            return self.root
        if "/" in name:
            raise ConfigurationError(f"-n {name}: a name has no slash; -p names an environment by its path")
        if name:
            found = (home / name for home in self.homes if is_environment(home / name))
            return next(found, self.homes[0] / name)
        return Path(self.environ.get("CONDA_PREFIX") or self.root).absolute()

    def existing(self, name: str = "", path: str = "") -> Path:
        """As `prefix`. Raises ConfigurationError if there is no environment."""
        prefix = self.prefix(name, path)
        if not is_environment(prefix):
            others = ", ".join(self.name(each) for each in self.environments())
            raise ConfigurationError(f"{prefix} is no conda environment; there are {others}")
        return prefix

    def activated(self, word: str) -> Path:
        """The environment that is meant by the word of `activate`: a path if it has a slash, else a name."""
        return self.existing(path=word) if "/" in word else self.existing(name=word or "base")

    def name(self, prefix: Path) -> str:
        """What an environment is called: its name, or its path if it lies elsewhere."""
        if self.is_root(prefix):
            return "base"
        return prefix.name if prefix.parent in self.homes else str(prefix)

    def is_root(self, prefix: Path) -> bool:
        """Whether this is base."""
        return prefix.resolve() == self.root.resolve()

    def environments(self) -> Iterator[Path]:
        """All environments: base, then those with names."""
        yield self.root
        for home in self.homes:
            if home.is_dir():
                yield from sorted(each for each in home.iterdir() if is_environment(each))


def is_environment(prefix: Path) -> bool:
    """Whether a folder is a conda environment."""
    return (prefix / "conda-meta").is_dir()


def records(prefix: Path) -> list[dict[str, Any]]:
    """The records that conda has of the packages in an environment, by name."""
    found = [json.loads(each.read_text()) for each in prefix.glob("conda-meta/*.json") if "-" in each.name]
    return sorted((each for each in found if "name" in each), key=lambda each: str(each["name"]))


def variables(prefix: Path) -> dict[str, str]:
    """The environment variables that an environment.yml has set for it."""
    try:
        content = json.loads((prefix / "conda-meta" / "state").read_text())
    except FileNotFoundError:
        return {}
    return {str(name): str(value) for name, value in content.get("env_vars", {}).items()}


def set_variables(prefix: Path, values: Mapping[str, str]) -> None:
    """Keep variables for activation, in conda's own file."""
    content = {"version": 1, "env_vars": {**variables(prefix), **values}}
    (prefix / "conda-meta" / "state").write_text(json.dumps(content))
