"""The commands that install those of a declaration's packages that production needs. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mooring.commands.install.finding import Declaration
from mooring.commands.install.target import Environment
from mooring.errors import ConfigurationError

WORKER = Path(__file__).with_name("conda.py")


class Selection(NamedTuple):
    """The groups and extras to install besides the production group."""

    groups: Sequence[str] = ()
    extras: Sequence[str] = ()


class Step(NamedTuple):
    """A command: its tool (toolbox.py finds the program) and its arguments.

    Its stdout is written to the file `into`. It runs only if the file `given` exists.
    """

    tool: str
    args: tuple[str, ...]
    into: Path | None = None
    given: Path | None = None

    def __str__(self) -> str:
        return " ".join([self.tool, *self.args, *([">", str(self.into)] if self.into else [])])


def steps(found: Declaration, target: Environment, wanted: Selection, scratch: Path) -> list[Step]:
    """The commands, in order; they run in the application's folder, and may write into `scratch`.

    Raises ConfigurationError if the declaration has no such group or extra.
    """
    _known(found, wanted)
    exported = scratch / "requirements.txt"
    install = Step("uv", _install(target, "--no-deps", "--requirements", str(exported)))
    groups, extras = _each("--group", wanted.groups), _each("--extra", wanted.extras)
    file = str(found.path)
    match found.form.name:
        case "uv.lock":
            plain = ("--frozen", "--inexact", "--no-default-groups", "--no-install-project")
            return [Step("uv", ("sync", *plain, "--python", str(target.python), *groups, *extras))]
        case "poetry.lock":
            only = ",".join(("main", *wanted.groups))
            export = ("export", "--no-interaction", "--with-credentials", "--only", only)
            extras = _each("--extras", wanted.extras)
            return [Step("poetry", (*export, *extras, "--output", str(exported))), install]
        case "pdm.lock":
            named = _pdm_groups(found.facts.groups or (), (*wanted.groups, *wanted.extras))
            return [Step("pdm", ("export", "--expandvars", *named, "--output", str(exported))), install]
        case "Pipfile.lock":
            categories = " ".join(("packages", *wanted.groups))
            return [
                Step("pipenv", ("requirements", "--hash", "--categories", categories), into=exported),
                install,
            ]
        case "pylock.toml":
            # for uv, named groups replace the default ones, as the specification says (PEP 751)
            named = _each("--group", (*found.facts.defaults, *wanted.groups) if wanted.groups else ())
            more = ("--preview-features", "pylock", *named, *extras)
            return [Step("uv", _install(target, *more, "--requirements", file))]
        case "pyproject.toml":
            groups = _each("--group", [f"{found.path}:{name}" for name in wanted.groups])
            return [Step("uv", _install(target, *groups, *extras, "--requirements", file))]
        case "requirements.txt":
            return [Step("uv", _install(target, "--requirements", file))]
    return _conda(found, target, wanted, scratch)


def _pdm_groups(known: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Options for these groups and no others: pdm would add every development group to a named extra."""
    if not names:
        return ("--prod",)
    others = ",".join(name for name in known if name not in ("default", *names))
    return (*_each("--group", names), *(("--without", others) if others else ()))


def _install(target: Environment, *args: str) -> tuple[str, ...]:
    return ("pip", "install", "--python", str(target.python), *args)


def _conda(found: Declaration, target: Environment, wanted: Selection, scratch: Path) -> list[Step]:
    """The steps for a conda form: conda.py installs conda's packages, then uv those from PyPI."""
    pip = scratch / "requirements.txt"
    args = ["-I", str(WORKER), "--file", str(found.path), "--prefix", str(target.prefix), "--pip", str(pip)]
    if target.own:
        args += ["--keep-python", "{}.{}".format(*sys.version_info[:2])]
    locked = found.form.name != "environment.yml"
    install = _install(target, *(["--no-deps"] if locked else []), "--requirements", str(pip))
    first = Step("py-rattler", (*args, *_each("--group", wanted.groups)))
    return [first, Step("uv", install, given=pip)]


def _each(option: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for name in names for word in (option, name))


def _known(found: Declaration, wanted: Selection) -> None:
    """Raise ConfigurationError for an unknown group or extra, which the tool itself would silently ignore."""
    facts = found.facts
    for kind, names, known in (
        ("group", wanted.groups, facts.groups),
        ("extra", wanted.extras, facts.extras),
    ):
        for name in names:
            if known is not None and name not in known:
                others = f"; it has {', '.join(known)}" if known else ""
                raise ConfigurationError(f"--{kind} {name}: {found.path} has no such {kind}{others}")
