# ruff: noqa: T201
"""One change of one environment: what to install is known; it is chosen, carried out, and told."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rattler

from mooring.commands.conda import places
from mooring.commands.conda.condarc import Configuration
from mooring.commands.conda.files import Content, explicit
from mooring.commands.conda.places import Places
from mooring.commands.conda.solve import Wanted, choose, installed, is_stand_in, name
from mooring.commands.conda.transaction import Changes, carry_out, changes
from mooring.commands.install.conda import RefusedError, check_python
from mooring.errors import ConfigurationError, ToolError

# What a spec ends with that is a package itself.
ARCHIVES = (".conda", ".tar.bz2")


@dataclass
class Job:
    """One change of one environment."""

    at: Places
    configuration: Configuration
    given: argparse.Namespace
    prefix: Path
    specs: list[str] = field(default_factory=list)
    files: list[Content] = field(default_factory=list)
    loose: frozenset[str] = frozenset()
    prune: bool = False
    replaced: Path | None = None

    @property
    def python(self) -> str:
        """The X.Y that base has to keep."""
        return "{}.{}".format(*sys.version_info[:2]) if self.at.is_root(self.prefix) else ""


async def perform(job: Job) -> None:
    """Choose and install. Raises ConfigurationError, ToolError."""
    given = job.given
    archives = [each for each in job.specs if each.endswith(ARCHIVES)]
    specs = [each for each in job.specs if each not in archives]
    before = installed(job.prefix)
    records = [record for each in job.files for record in each.records]
    records += await explicit(archives, job.at.kept)
    chosen = list(before)
    if records:
        names = {each.name.normalized for each in records}
        chosen = [*records, *(each for each in before if each.name.normalized not in names)]
    elif specs or job.loose or job.prune:
        chosen = await _solved(job, specs, before)
    asked = {name(each): each for each in specs}
    there = {each.name.normalized for each in before}
    if given.no_deps:
        chosen = [each for each in chosen if each.name.normalized in {*asked, *there}]
    if given.only_deps:
        chosen = [
            each for each in chosen if each.name.normalized in there or each.name.normalized not in asked
        ]
        asked = {}
    try:
        check_python(chosen, job.python)
    except RefusedError as error:
        raise ConfigurationError(
            str(error).replace("name another --prefix", "conda create -n NAME")
        ) from None
    await apply(job, chosen, asked)


async def _solved(
    job: Job, specs: Sequence[str], before: Sequence[rattler.RepoDataRecord]
) -> list[rattler.RepoDataRecord]:
    given, configuration = job.given, job.configuration
    inside = [each for content in job.files for each in content.channels]
    pinned = [each.partition("::")[0].partition("/linux-")[0] for each in specs if "::" in each]
    named = [*given.channel, *inside, *(each.removesuffix("/noarch") for each in pinned)]
    plain = given.override_channels or "nodefaults" in inside
    strict = configuration.strict and not given.no_channel_priority
    wanted = Wanted(
        specs=tuple(specs),
        channels=tuple(configuration.sources(named)),
        further=() if plain and named else tuple(configuration.sources(configuration.channels)),
        installed=tuple(before),
        loose=job.loose,
        prune=job.prune,
        python=job.python,
        strict=strict and given.channel_priority not in ("disabled", "0"),
        downloads=job.at.kept,
    )
    try:
        found = await choose(wanted)
    except ToolError as error:
        raise ToolError(f"cannot be installed into {job.prefix}: {error}", error.exit_code) from None
    for line in wanted.said:
        print(f"conda: {line}", file=sys.stderr)
    return list(found)


async def apply(job: Job, chosen: Sequence[rattler.RepoDataRecord], asked: dict[str, str]) -> None:
    """Make the environment have these packages, or say what that would mean."""
    given = job.given
    if given.dry_run:
        _say(job, changes(installed(job.prefix), chosen), "would be")
        return
    again = frozenset(asked) if given.force_reinstall else frozenset()
    _say(job, await carry_out(job.at, job.prefix, chosen, asked, again=again, replaced=job.replaced), "is")


def _say(job: Job, done: Changes, verb: str) -> None:
    if job.given.json:
        actions = {"LINK": [str(each) for each in done.added], "UNLINK": [str(each) for each in done.removed]}
        print(json.dumps({"success": True, "prefix": str(job.prefix), "actions": actions}))
    elif not job.given.quiet:
        for sign, records in (("-", done.removed), ("+", done.added)):
            for each in sorted(records, key=lambda each: str(each.name.normalized)):
                kind = "the image's own" if is_stand_in(each) else str(each.channel or each.url).rstrip("/")
                print(f"  {sign} {each.name.normalized} {each.version} {each.build}  {kind}")
        what = "nothing had to change" if not done.added and not done.removed else f"this {verb} done"
        print(f"{job.prefix}: {what}")


def finish(job: Job) -> None:
    """The pip section and the variables of an environment.yml."""
    if job.given.dry_run:
        return
    for content in job.files:
        if content.variables:
            places.set_variables(job.prefix, content.variables)
            if not job.given.quiet:
                print(f"{', '.join(content.variables)}: set by activation and conda run; elsewhere write ENV")
        if content.pip:
            _pip(job, content)


def _pip(job: Job, content: Content) -> None:
    """Install from PyPI with the image's pip, which needs none in the environment."""
    python = job.prefix / "bin" / "python"
    if not python.exists():
        raise ConfigurationError(f"{content.path}: its pip section needs python among the dependencies")
    file = job.at.scratch / "requirements.txt"
    file.write_text("".join(f"{line}\n" for line in content.pip))
    cache = job.at.home / ".cache"
    keep = [] if os.path.ismount(cache) or os.path.ismount(cache / "pip") else ["--no-cache-dir"]
    quiet = ["--quiet"] if job.given.quiet or job.given.json else []
    deps = ["--no-deps"] if any(each.records for each in job.files) else []
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-input"]
    sys.stdout.flush()
    environ = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", **job.at.environ}
    done = subprocess.run(  # noqa: S603 (no shell)
        [*command, *keep, *quiet, *deps, "--requirement", str(file)],
        cwd=content.path.parent,
        env=environ,
        check=False,
    )
    if done.returncode:
        code = done.returncode if done.returncode > 0 else 128 - done.returncode
        raise ToolError(
            f"{content.path}: pip ended with exit code {code}; conda's packages are in {job.prefix}", code
        )
