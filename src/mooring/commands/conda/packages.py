# ruff: noqa: T201
"""The commands that change environments: install, create, update, remove, and those of `conda env`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mooring.commands.conda import options, places
from mooring.commands.conda.apart import begin, done, writable
from mooring.commands.conda.condarc import Configuration
from mooring.commands.conda.files import Content, read
from mooring.commands.conda.job import ARCHIVES, Job, apply, finish, perform
from mooring.commands.conda.places import Places
from mooring.commands.conda.solve import OURS, installed, name
from mooring.errors import ConfigurationError


def install(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda install`."""
    given = options.packages("install").parse_intermixed_args(words)
    if not given.specs and not given.file and not given.all:
        raise ConfigurationError("install: which packages? (or --file FILE)")
    path = at.prefix(given.name, given.prefix)
    return _change(at, configuration, given, path if path.exists() else at.existing(given.name, given.prefix))


def create(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda create`: an environment that is there already is made anew, as conda does with --yes."""
    given = options.packages("create").parse_intermixed_args(words)
    if not given.name and not given.prefix and not given.file:
        raise ConfigurationError("create: which environment? -n NAME or -p PATH")
    prefix = at.prefix(given.name, given.prefix) if given.name or given.prefix else None
    return _change(at, configuration, given, prefix, fresh=True)


def update(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda update`: of conda itself, which is not here, it says so and does nothing."""
    given = options.packages("update").parse_intermixed_args(words)
    prefix = at.existing(given.name, given.prefix)
    given.specs = _without_ours(at, prefix, given.specs)
    if not given.specs and not given.file and not given.all:
        return 0
    there = {str(each["name"]) for each in places.records(prefix)}
    missing = [each for each in given.specs if name(each) not in there]
    if missing:
        raise ConfigurationError(f"update: {', '.join(missing)} is not installed in {prefix}")
    return _change(at, configuration, given, prefix, update=True)


def remove(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda remove`: packages and what needs them, or the whole environment."""
    given = options.packages("remove").parse_intermixed_args(words)
    prefix = at.existing(given.name, given.prefix)
    if given.all:
        return _remove_environment(at, prefix)
    if not given.specs:
        raise ConfigurationError("remove: which packages? (or --all, the environment)")
    records = installed(prefix)
    gone = {name(each) for each in given.specs}
    missing = gone - {each.name.normalized for each in records}
    if missing:
        raise ConfigurationError(f"remove: {', '.join(sorted(missing))} is not installed in {prefix}")
    while True:
        more = {
            each.name.normalized for each in records if any(need.split()[0] in gone for need in each.depends)
        }
        if more <= gone:
            break
        gone |= more
    if at.is_root(prefix) and "python" in gone:
        raise ConfigurationError("remove: python stays in base: mooring runs on it")
    left = [each for each in records if each.name.normalized not in gone]
    asyncio.run(apply(Job(at, configuration, given, prefix), left, {}))
    return 0


def environment(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda env create`, `update` and `remove`."""
    command, *rest = words
    parser = options.installing(f"env {command}")
    if command == "remove":
        return _remove_environment(at, at.existing(*_named(parser.parse_intermixed_args(rest))))
    parser.add_argument("--prune", action="store_true")
    parser.add_argument("more", nargs="*", default=[])
    given = parser.parse_intermixed_args(rest)
    if len(given.file) + len(given.more) > 1:
        raise ConfigurationError(f"env {command}: one file at a time")
    usual = next((each for each in ("environment.yml", "environment.yaml") if Path(each).exists()), "")
    given.file = given.file or given.more or ([usual] if usual else [])
    if not given.file:
        raise ConfigurationError(f"env {command}: there is no environment.yml here; name one with -f FILE")
    given.specs, given.all = [], False
    given.no_deps = given.only_deps = given.force_reinstall = False
    prefix = at.prefix(*_named(given)) if any(_named(given)) else None
    return _change(at, configuration, given, prefix, fresh=command == "create", prune=given.prune)


def _named(given: argparse.Namespace) -> tuple[str, str]:
    return given.name, given.prefix


def _remove_environment(at: Places, prefix: Path) -> int:
    if at.is_root(prefix):
        raise ConfigurationError("base cannot be removed: mooring runs in it")
    shutil.rmtree(prefix)
    print(f"{prefix} is removed")
    return 0


def _change(  # noqa: PLR0917
    at: Places,
    configuration: Configuration,
    given: argparse.Namespace,
    prefix: Path | None,
    fresh: bool = False,
    update: bool = False,
    prune: bool = False,
) -> int:
    """Do all of one command. A file may name the environment: then `prefix` is None."""
    contents = [asyncio.run(read(each, at)) for each in given.file]
    prefix = prefix or _prefix_in(at, contents)
    if fresh and at.is_root(prefix):
        raise ConfigurationError("base is there already: install, or env update")
    writable(prefix)
    given.specs = _without_ours(at, prefix, given.specs)
    specs = [*given.specs, *(spec for each in contents for spec in _without_ours(at, prefix, each.specs))]
    loose = frozenset(name(each) for each in specs) if update else frozenset()
    if given.all:
        loose = frozenset(str(each["name"]) for each in places.records(prefix))
    job = Job(at, configuration, given, prefix, specs, contents, loose, prune)
    if fresh and prefix.exists() and not given.dry_run:
        _replaceable(prefix)
        job.replaced = prefix.with_name(f".{prefix.name}.old")
        begin(at, prefix, job.replaced)
        prefix.rename(job.replaced)
    asyncio.run(perform(job))
    done(at)
    if job.replaced:
        shutil.rmtree(job.replaced)
    finish(job)
    return 0


def _replaceable(prefix: Path) -> None:
    if any(prefix.iterdir()) and not places.is_environment(prefix):
        raise ConfigurationError(f"{prefix} holds something else; name another")


def _prefix_in(at: Places, contents: Sequence[Content]) -> Path:
    found = next((each for each in contents if each.name or each.prefix), None)
    if found is None:
        return at.prefix()
    return at.prefix(found.name) if found.name else at.prefix(path=found.prefix)


def _without_ours(at: Places, prefix: Path, specs: Sequence[str]) -> list[str]:
    """Specs without conda and mamba, which base has: these."""
    if not at.is_root(prefix):
        return list(specs)
    ours = [each for each in specs if not each.endswith(ARCHIVES) and name(each) in OURS]
    if ours:
        print(
            f"conda: nothing is done for {', '.join(ours)}: the image's own stays, which is mooring's",
            file=sys.stderr,
        )
    return [each for each in specs if each not in ours]
