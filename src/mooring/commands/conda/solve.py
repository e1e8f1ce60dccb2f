"""Which packages an environment is to have, by py-rattler's solver. Changes nothing.

base is special: mooring serves on its Python, so it keeps the image's minor version. At first it is the
image's own Python (layout.py), which is enough for packages of Python files. A package that was compiled for
conda's Python gets that, where a channel has it: only conda's Python is sure to share its libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rattler
import rattler.exceptions

from mooring.commands.conda.places import STAND_IN
from mooring.commands.install.conda import channel_urls
from mooring.errors import ConfigurationError, ToolError

# base has commands of these names already; conda's own would write over them.
OURS = ("conda", "mamba", "conda-libmamba-solver")


@dataclass(frozen=True)
class Wanted:
    """What is asked of an environment.

    `channels` are those named by the command or the file; `further`, the configured ones, are asked only if
    those do not suffice: where a package is in both, they would not be taken anyway. `loose` are names of
    installed packages that may change their version; `python` is the X.Y that base has to keep.
    """

    specs: tuple[str, ...]
    channels: tuple[str, ...]
    further: tuple[str, ...] = ()
    installed: tuple[rattler.PrefixRecord, ...] = ()
    loose: frozenset[str] = frozenset()
    prune: bool = False
    python: str = ""
    strict: bool = True
    downloads: Path | None = None
    said: list[str] = field(default_factory=list)


def installed(prefix: Path) -> tuple[rattler.PrefixRecord, ...]:
    """The packages of an environment."""
    found = [rattler.PrefixRecord.from_path(each) for each in sorted(prefix.glob("conda-meta/*.json"))]
    return tuple(found)


def parse(text: str) -> rattler.MatchSpec:
    """A spec in any form that conda's command line takes. Raises ConfigurationError."""
    try:
        return rattler.MatchSpec(text)
    except rattler.exceptions.InvalidMatchSpecError as error:
        raise ConfigurationError(f"{text!r} names no package: {error}") from None


def name(text: str) -> str:
    """The package's name in a spec."""
    return str(parse(text).name.normalized)


def is_stand_in(record: rattler.RepoDataRecord) -> bool:
    """Whether a record is that of the image's own Python, or of its pip."""
    return str(record.build) == STAND_IN


async def choose(wanted: Wanted) -> list[rattler.RepoDataRecord]:
    """The packages that the environment is to have. Raises ConfigurationError, ToolError."""
    if not any(each.name.normalized == "python" and is_stand_in(each) for each in wanted.installed):
        return await _first(wanted, conda_python=not _has(wanted.installed, "python"))
    try:
        light: list[rattler.RepoDataRecord] | None = await _first(wanted, conda_python=False)
        failure: ToolError | None = None
    except ToolError as error:
        light, failure = None, error
    compiled = [each.name.normalized for each in light or () if _is_compiled(each)]
    if light is not None and not compiled:
        return light
    try:
        return await _first(wanted, conda_python=True)
    except ToolError as error:
        if light is None:
            raise failure or error from None
        names = ", ".join(compiled)
        wanted.said.append(f"no channel has a Python {wanted.python}: {names} will run on the image's own")
        return light


async def _first(wanted: Wanted, *, conda_python: bool) -> list[rattler.RepoDataRecord]:
    """The solution from the channels that are named, or, failing that, from the configured ones too."""
    named, everything = wanted.channels, tuple(dict.fromkeys((*wanted.channels, *wanted.further)))
    if not named or named == everything:
        return await _solve(wanted, everything, conda_python)
    try:
        return await _solve(wanted, named, conda_python)
    except ToolError as error:
        try:
            return await _solve(wanted, everything, conda_python)
        except ToolError as other:
            if isinstance(other, UnreachableError):
                raise ToolError(f"{error}\n({other})", 1) from None
            raise


class UnreachableError(ToolError):
    """A channel could not be read."""


async def _solve(wanted: Wanted, channels: Sequence[str], conda_python: bool) -> list[rattler.RepoDataRecord]:
    locked = [each for each in wanted.installed if each.name.normalized not in wanted.loose]
    constraints = [f"python {wanted.python}.*", *(f"{each} <0a0" for each in OURS)] if wanted.python else []
    if conda_python and wanted.python:
        locked = [each for each in locked if not is_stand_in(each)]
    sources = [url for each in channels for url in channel_urls(each)]
    gateway = rattler.Gateway(cache_dir=wanted.downloads / "cache" if wanted.downloads else None)
    try:
        pip = conda_python and await _has_pip(gateway, sources)
        specs = [parse(each) for each in (*wanted.specs, *_kept(wanted, conda_python))]
        found = await rattler.solve(
            sources,
            specs,
            gateway=gateway,
            locked_packages=locked,
            virtual_packages=rattler.VirtualPackage.detect(rattler.VirtualPackageOverrides.from_env()),
            channel_priority=getattr(rattler.ChannelPriority, "Strict" if wanted.strict else "Disabled"),
            constraints=constraints,
            add_pip_as_python_dependency=pip,
        )
    except rattler.exceptions.SolverError as error:
        text = str(error).partition("because of: ")[2] or str(error)
        raise ToolError(f"{text.strip()}\n(looked in {', '.join(channels)})", 1) from None
    except (rattler.exceptions.GatewayError, rattler.exceptions.FetchRepoDataError, OSError) as error:
        raise UnreachableError(one_line(error), 1) from None
    return list(found)


def one_line(error: BaseException) -> str:
    """An error of py-rattler's, with its causes."""
    return ": ".join(
        line.removeprefix("Caused by: ").strip() for line in str(error).splitlines() if line.strip()
    )


async def _has_pip(gateway: rattler.Gateway, sources: Sequence[str]) -> bool:
    """Whether the channels have pip: conda adds it to every Python."""
    found = await gateway.query(
        sources, [rattler.Subdir.current(), rattler.Subdir("noarch")], ["pip"], recursive=False
    )
    return any(found)


def _kept(wanted: Wanted, conda_python: bool) -> Iterable[str]:
    """Specs for what is installed: it stays, as it was asked for. The image's pip goes with its Python."""
    if wanted.prune:
        return ["python"] if wanted.python else []
    asked = {name(each) for each in wanted.specs}
    kept = []
    for record in wanted.installed:
        own = record.name.normalized
        if own not in asked and not (conda_python and own == "pip" and is_stand_in(record)):
            told = (
                [] if own in wanted.loose else [each for each in record.requested_specs if "::" not in each]
            )
            kept += told or [own]
    return kept


def _has(records: Iterable[rattler.RepoDataRecord], wanted: str) -> bool:
    return any(each.name.normalized == wanted for each in records)


def _is_compiled(record: rattler.RepoDataRecord) -> bool:
    """Whether a package was built for one Python, so that it may share libraries with that."""
    if record.noarch.python or record.noarch.generic or record.name.normalized in ("python", "pip"):
        return False
    return any(each.split()[0] in ("python", "python_abi") for each in record.depends)
