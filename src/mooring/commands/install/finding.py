"""Which declaration of dependencies an application's folder holds. Reads files; runs nothing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mooring.errors import ConfigurationError


class Form(NamedTuple):
    """A form of declaration: its file's names, the tool that reads it, what must lie beside it, and which
    others say the same less exactly, so that nothing is passed over when they are there too.
    """

    names: tuple[str, ...]
    tool: str
    needs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The usual name of its file."""
        return self.names[0]


# The stated order: the first that is there is installed.
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
    """What a declaration says of itself: the range of Pythons that it is for (empty: nothing), the names of
    its groups and extras (None: its tool is to say), and the groups that count where none is named.
    """

    pythons: str = ""
    groups: tuple[str, ...] | None = None
    extras: tuple[str, ...] | None = None
    defaults: tuple[str, ...] = ()


class Declaration(NamedTuple):
    """What is to be installed: the file, its form, the names of the files that were passed over for it."""

    path: Path
    form: Form
    passed_over: tuple[str, ...]
    facts: Declared


def find(folder: Path, chosen: str = "") -> Declaration:
    """The declaration in `folder`; `chosen` names one that is not the first. Raises ConfigurationError."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder; name the one that declares the dependencies")
    there = [(form, path) for form in ORDER if (path := _file(folder, form, chosen)) is not None]
    if chosen:
        there = [(form, path) for form, path in there if path.name == chosen]
    if not there:
        names = ", ".join(form.name for form in ORDER)
        if chosen:
            raise ConfigurationError(f"{folder} has no {chosen} to install from; known are {names}")
        raise ConfigurationError(f"{folder} declares no dependencies: looked for {names}")
    form, path = there[0]
    for name in form.needs:
        if not (folder / name).is_file():
            raise ConfigurationError(f"{path}: {form.tool} needs {name} beside it; copy both into the image")
    passed = tuple(path.name for other, path in there[1:] if other.name not in form.sources)
    return Declaration(path, form, passed, _facts(form, path))


def _file(folder: Path, form: Form, chosen: str) -> Path | None:
    for name in form.names:
        path = folder / name
        if path.is_file() and (name != "pyproject.toml" or name == chosen or _declares(path)):
            return path
    return None


def _declares(path: Path) -> bool:
    """Whether a pyproject.toml says what the application needs; many hold only linters' settings."""
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
            groups = tuple(metadata.get("groups", ()))  # its extras are among them
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
    """A TOML file's content. Raises ConfigurationError where it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None


def _table(content: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = content.get(key, {})
        content = found if isinstance(found, dict) else {}
    return content
