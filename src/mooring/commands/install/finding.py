"""Which declaration of dependencies an application's folder holds. Reads files; runs nothing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mooring.errors import ConfigurationError


class Form(NamedTuple):
    """A form of declaration.

    `names` are its file's possible names, `tool` reads it, `needs` are files that must lie beside it, and
    `sources` files that it is made from: they are not reported as passed over.
    """

    names: tuple[str, ...]
    tool: str
    needs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The usual name of its file."""
        return self.names[0]


# The documented order: the first form whose file exists is installed.
ORDER = (
    Form(("uv.lock",), "uv", ("pyproject.toml",), ("pyproject.toml",)),
    Form(("poetry.lock",), "poetry", ("pyproject.toml",), ("pyproject.toml",)),
    Form(("pdm.lock",), "pdm", ("pyproject.toml",), ("pyproject.toml",)),
    Form(("pylock.toml",), "uv", (), ("pyproject.toml",)),
    Form(("requirements.txt",), "uv"),
    Form(("pyproject.toml",), "uv"),
    Form(("Pipfile.lock",), "pipenv"),
    Form(("conda-lock.yml", "conda-lock.yaml"), "py-rattler", (), ("environment.yml",)),
    Form(("environment.yml", "environment.yaml"), "py-rattler"),
    Form(("pixi.lock",), "py-rattler", (), ("pyproject.toml",)),
)


class Declared(NamedTuple):
    """What a declaration says about itself.

    `pythons` is the range of Python versions that it is for (empty: not said), `groups` and `extras` are
    their names (None: only its tool knows them), `defaults` the groups that are installed if none is named.
    """

    pythons: str = ""
    groups: tuple[str, ...] | None = None
    extras: tuple[str, ...] | None = None
    defaults: tuple[str, ...] = ()


class Declaration(NamedTuple):
    """What to install: the file, its form, the names of the files that were passed over for it, its facts."""

    path: Path
    form: Form
    passed_over: tuple[str, ...]
    facts: Declared


def find(folder: Path, chosen: str = "") -> Declaration:
    """The first declaration in `folder`, or the file named `chosen`. Raises ConfigurationError."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder; name the one that declares the dependencies")
    present = [(form, path) for form in ORDER if (path := _file(folder, form, chosen)) is not None]
    if chosen:
        present = [(form, path) for form, path in present if path.name == chosen]
    if not present:
        names = ", ".join(form.name for form in ORDER)
        if chosen:
            raise ConfigurationError(f"{folder} has no {chosen} to install from; known are {names}")
        raise ConfigurationError(f"{folder} declares no dependencies: looked for {names}")
    form, path = present[0]
    for name in form.needs:
        if not (folder / name).is_file():
            raise ConfigurationError(f"{path}: {form.tool} needs {name} beside it; copy both into the image")
    passed = tuple(path.name for other, path in present[1:] if other.name not in form.sources)
    return Declaration(path, form, passed, _facts(form, path))


def _file(folder: Path, form: Form, chosen: str) -> Path | None:
    for name in form.names:
        path = folder / name
        if path.is_file() and (name != "pyproject.toml" or name == chosen or _declares(path)):
            return path
    return None


def _declares(path: Path) -> bool:
    """Whether a pyproject.toml declares dependencies; many hold only settings of linters."""
    content = load_toml(path)
    project, poetry = _table(content, "project"), _table(content, "tool", "poetry")
    dynamic = project.get("dynamic", [])
    return "dependencies" in project or "dependencies" in dynamic or "dependencies" in poetry


def _facts(form: Form, path: Path) -> Declared:
    match form.name:
        case "uv.lock":
            return Declared(str(load_toml(path).get("requires-python", "")))
        case "poetry.lock":
            return Declared(str(_table(load_toml(path), "metadata").get("python-versions", "")))
        case "pdm.lock":
            metadata = _table(load_toml(path), "metadata")
            targets = metadata.get("targets", [{"requires_python": metadata.get("requires_python", "")}])
            asked = [str(target.get("requires_python", "*")) or "*" for target in targets]
            groups = tuple(metadata.get("groups", ()))  # pdm lists extras as groups
            return Declared("||".join(asked), groups, groups)
        case "pylock.toml":
            content = load_toml(path)
            names = [tuple(content.get(key, ())) for key in ("dependency-groups", "extras", "default-groups")]
            return Declared(str(content.get("requires-python", "")), *names)
        case "pyproject.toml":
            content = load_toml(path)
            poetry = _table(content, "tool", "poetry", "dependencies").get("python", "")
            return Declared(str(_table(content, "project").get("requires-python", poetry)))
        case "Pipfile.lock":
            return _pipfile(path)
        case "requirements.txt" | "environment.yml":
            return Declared("", (), ())
    return Declared("", None, ())


def _pipfile(path: Path) -> Declared:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        requires = content.get("_meta", {}).get("requires", {})
        groups = tuple(name for name in content if name not in ("_meta", "default"))
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{path}: not a Pipfile.lock: {error}") from None
    full, short = requires.get("python_full_version", ""), requires.get("python_version", "")
    return Declared(f"=={full}" if full else f"=={short}.*" if short else "", groups, ())


def load_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content. Raises ConfigurationError if it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None


def _table(content: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = content.get(key, {})
        content = found if isinstance(found, dict) else {}
    return content
