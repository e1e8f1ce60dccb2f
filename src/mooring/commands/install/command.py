"""`mooring install`: find the declaration, run its tool, check that mooring can work with the result."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click

import mooring
from mooring.commands.install.agreement import mismatches
from mooring.commands.install.finding import Declaration, find
from mooring.commands.install.plans import Selection, Step, steps
from mooring.commands.install.target import Environment, look
from mooring.commands.install.toolbox import Toolbox, cache_folder, environment, label
from mooring.commands.install.versions import satisfies
from mooring.errors import EXIT_OK, ConfigurationError
from mooring.settings.resolve import resolve
from mooring.settings.table import ROWS


class Asked(NamedTuple):
    """The arguments of the command line; a text is empty if it was not given."""

    folder: str = ""
    source: str = ""
    prefix: str = ""
    cache: str = ""
    wanted: Selection = Selection()
    dry_run: bool = False
    any_version: bool = False


def install(asked: Asked, environ: Mapping[str, str], cwd: Path) -> int:
    """Install what the application's folder declares. Returns the exit code; raises MooringError."""
    folder = cwd / asked.folder if asked.folder else application_root(environ, cwd)
    found = find(folder.resolve(), asked.source)
    target = look(asked.prefix)
    _suits(found, target)
    if asked.dry_run:
        plan = steps(found, target, asked.wanted, Path("TEMPORARY"))
        _say(found, target)
        for step in plan:
            _show(step, environ)
        return EXIT_OK
    _writable(target)
    with tempfile.TemporaryDirectory(prefix="mooring-install-") as name:
        scratch = Path(name)
        plan = steps(found, target, asked.wanted, scratch)
        _say(found, target)
        cache = cache_folder(asked.cache, environ, scratch)
        tools = Toolbox(environment(environ, scratch, cache), scratch, found.path)
        _run(plan, tools, target)
    return _agree(found, look(asked.prefix), any_version=asked.any_version)


def application_root(environ: Mapping[str, str], cwd: Path) -> Path:
    """The application root that `run` would use. Other settings do not matter before the code is there."""
    names = {name for row in ("app_root", "profile") for name in (ROWS[row].canonical, *ROWS[row].bare)}
    given = {name: value for name, value in environ.items() if name in names}
    return Path(resolve({}, given, cwd).settings.app_root or ".")


def _suits(found: Declaration, target: Environment) -> None:
    """Raise ConfigurationError if the declaration cannot be installed into the environment."""
    conda = found.form.tool == "py-rattler"
    if conda and target.own and not target.conda:
        raise ConfigurationError(
            f"{found.path}: mooring runs in {target.prefix}, which is no conda environment; "
            "name the one to make or to add to, such as --prefix /opt/conda"
        )
    if not conda and not target.version:
        raise ConfigurationError(
            f"--prefix {target.prefix}: there is no bin/python; make it with python -m venv {target.prefix}"
        )
    if target.version and satisfies(found.facts.pythons, target.version) is False:
        raise ConfigurationError(
            f"{found.path} is for Python {found.facts.pythons}, but {target.prefix} has {target.version}"
        )


def _writable(target: Environment) -> None:
    """Raise ConfigurationError if this user cannot write there: uv would report that only at the end."""
    if target.packages is not None and target.packages.is_dir() and not os.access(target.packages, os.W_OK):
        raise ConfigurationError(
            f"{target.packages} cannot be written by user {os.getuid()}: in a Dockerfile, write USER root "
            "before this, and the user again after it; or name an environment of this user's with --prefix"
        )


def _say(found: Declaration, target: Environment) -> None:
    later = ", ".join(found.passed_over)
    passed = f"; passed over, as later in the order: {later}" if later else ""
    click.echo(f"mooring: {found.path} goes into {target}{passed}")


def _show(step: Step, environ: Mapping[str, str]) -> None:
    click.echo(f"mooring: {label(step.tool, environ)}: {step}")


def _run(plan: list[Step], tools: Toolbox, target: Environment) -> None:
    for step in plan:
        if step.given is None or step.given.exists():
            _show(step, tools.environ)
            tools.run(step.tool, step.args, into=step.into, UV_PROJECT_ENVIRONMENT=str(target.prefix))


def _agree(found: Declaration, target: Environment, *, any_version: bool) -> int:
    """Warn of packages that mooring cannot work with.

    Raises ConfigurationError if mooring needs one of them, unless `any_version`.
    """
    if target.packages is None:
        return EXIT_OK
    wrong = mismatches(target.packages)
    if wrong is None:  # mooring is elsewhere; in the images, its own packages win over the application's
        if not (target.own or _apart()):
            click.echo(
                f"mooring: {target.prefix} has no mooring; to serve from there, install it there as well"
            )
        return EXIT_OK
    for each in wrong:
        if each.optional or any_version:
            click.echo(f"mooring: warning: mooring works with {each}", err=True)
    needed = [str(each) for each in wrong if not each.optional]
    if needed and not any_version:
        raise ConfigurationError(
            f"{found.path} is installed, but mooring cannot serve with it: needed is {'; '.join(needed)}; "
            "ask for that version, or pass --any-version"
        )
    return EXIT_OK


def _apart() -> bool:
    """Whether mooring's files lie as in the images (images/README.md), and not in an environment."""
    return (Path(mooring.__file__).parents[2] / "packages").is_symlink()
