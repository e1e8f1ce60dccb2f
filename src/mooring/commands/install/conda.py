# ruff: noqa: T201
"""Install conda packages into a prefix without a conda binary. plans.py runs this with py-rattler and PyYAML.

It is a program of its own, since mooring depends on neither; it imports nothing of mooring. Packages that are
already installed stay. Packages from PyPI are written to the file `--pip`, for uv. Post-link scripts are not
run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rattler
import rattler.exceptions
import yaml

# The channels that conda calls `defaults`:
# https://docs.conda.io/projects/conda/en/stable/user-guide/concepts/channels.html
_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")


# py-rattler's exceptions have no common base class.
FAILURES: tuple[type[Exception], ...] = (
    OSError,
    yaml.YAMLError,
    *(
        each
        for each in vars(rattler.exceptions).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ),
)


class Chosen(NamedTuple):
    """The packages to install: conda's records, and requirement lines for those from PyPI."""

    records: list[rattler.RepoDataRecord]
    pip: list[str]


def main(words: Sequence[str]) -> int:
    """Install. Returns 0; 2 if the file asks for something impossible, 1 if py-rattler fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--prefix", type=Path, required=True)
    parser.add_argument("--pip", type=Path, required=True)
    parser.add_argument("--group", action="append", default=[])
    parser.add_argument("--keep-python", default="", help="the X.Y that runs mooring here")
    given = parser.parse_args(words)
    try:
        asyncio.run(_install(given))
    except RefusedError as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    except FAILURES as error:
        print(f"py-rattler: {error}", file=sys.stderr)
        return 1
    return 0


class RefusedError(Exception):
    """The file asks for something impossible."""


async def _install(given: argparse.Namespace) -> None:
    installed = [rattler.PrefixRecord.from_path(each) for each in given.prefix.glob("conda-meta/*.json")]
    if given.file.name.startswith("environment."):
        chosen = await _solve(given.file, installed)
    else:
        chosen = read_lock(given.file, given.group)
        names = {record.name.normalized for record in chosen.records}
        chosen.records.extend(each for each in installed if each.name.normalized not in names)
    check_python(chosen.records, given.keep_python)
    await rattler.install(chosen.records, given.prefix, show_progress=False)
    print(f"py-rattler: {len(chosen.records)} conda packages are in {given.prefix}", flush=True)
    compile_all(given.prefix)
    if chosen.pip:
        given.pip.write_text("\n".join(chosen.pip) + "\n")


async def _solve(file: Path, installed: Sequence[rattler.PrefixRecord]) -> Chosen:
    """Choose versions for an environment.yml. Installed packages stay, at their version where it fits."""
    content = yaml.safe_load(file.read_text())
    if not isinstance(content, dict) or not isinstance(content.get("dependencies"), list):
        raise RefusedError("it has no list of dependencies")
    if content.get("variables"):
        print(f"{file}: variables are not set: say them with ENV", file=sys.stderr)
    specs = [each for each in content["dependencies"] if isinstance(each, str)]
    pip = [each["pip"] for each in content["dependencies"] if isinstance(each, dict) and "pip" in each]
    channels = [str(each) for each in content.get("channels") or ()]
    if not channels:
        print(f"{file}: it names no channel: conda-forge is taken", file=sys.stderr)
        channels = ["conda-forge"]
    channels += [spec.partition("::")[0] for spec in specs if "::" in spec]
    sources = [url for name in dict.fromkeys(channels) for url in channel_urls(name)]
    try:
        parsed = [rattler.MatchSpec(spec) for spec in specs]  # as lenient as conda: `a 1.2`, `a=1.*`
    except rattler.exceptions.InvalidMatchSpecError as error:
        raise RefusedError(f"dependencies: {error}") from None
    asked = {spec.name.normalized for spec in parsed}
    records = await rattler.solve(
        sources,
        [*parsed, *(each.name.normalized for each in installed if each.name.normalized not in asked)],
        locked_packages=installed,
        virtual_packages=rattler.VirtualPackage.detect(),
    )
    return Chosen(list(records), [pip_line(str(line), file.parent) for lines in pip for line in lines])


def channel_urls(name: str) -> Iterable[str]:
    """The addresses that a channel's name stands for."""
    if name == "nodefaults":
        return ()
    return _DEFAULTS if name == "defaults" else (name,)


def pip_line(line: str, folder: Path) -> str:
    """A line of the pip section; a file that it names is looked up in the environment.yml's folder."""
    words = line.split(None, 1)
    if len(words) == 2 and words[0] in ("-r", "-c", "--requirement", "--constraint"):
        return f"{words[0]} {folder / words[1]}"
    return line


def read_lock(file: Path, groups: Sequence[str]) -> Chosen:
    """The packages in a pixi.lock or conda-lock.yml for this machine.

    Production is the environment `default` of a pixi.lock, and the category `main` of a conda-lock.yml.
    """
    lock = rattler.LockFile.from_path(file)
    conda_lock = file.name.startswith("conda-lock.")
    name = "default" if conda_lock or not groups else groups[0]
    if not conda_lock and len(groups) > 1:
        raise RefusedError(f"--group names one environment, not {len(groups)}")
    environment = lock.environment(name)
    if environment is None:
        known = ", ".join(sorted(name for name, _ in lock.environments()))
        raise RefusedError(f"it has no environment {name!r}; it has {known}")
    here = str(rattler.Subdir.current())
    platform = next((each for each in environment.platforms() if str(each.subdir) == here), None)
    if platform is None:
        known = ", ".join(each.name for each in environment.platforms())
        raise RefusedError(f"it is not locked for {here}, but for {known}")
    wanted = _of_categories(file, here, groups) if conda_lock else None
    records, pip = [], []
    for package in environment.packages(platform) or ():
        if wanted is not None and package.name not in wanted:
            continue
        if isinstance(package, rattler.CondaLockedBinaryPackage):
            records.append(package.repo_data_record())
        elif isinstance(package, rattler.PypiLockedPackage):
            pip.append(_pip_locked(package, file.parent))
        else:
            raise RefusedError(f"{package.name} is locked as sources; only built packages can be installed")
    return Chosen(records, pip)


def _of_categories(file: Path, platform: str, groups: Sequence[str]) -> set[str]:
    """The names of a conda-lock.yml's packages in the categories `main` and `groups`, unknown to rattler."""
    packages: list[dict[str, Any]] = yaml.safe_load(file.read_text())["package"]
    known = {each.get("category", "main") for each in packages}
    for group in groups:
        if group not in known:
            raise RefusedError(f"it has no category {group!r}; it has {', '.join(sorted(known))}")
    wanted = {"main", *groups}
    return {
        each["name"]
        for each in packages
        if each["platform"] == platform and each.get("category", "main") in wanted
    }


def _pip_locked(package: rattler.PypiLockedPackage, folder: Path) -> str:
    digest = package.hashes and package.hashes.sha256
    if "://" not in package.location:
        return str(folder / package.location)
    return f"{package.name} @ {package.location}" + (f" --hash=sha256:{digest.hex()}" if digest else "")


def check_python(records: Iterable[rattler.RepoDataRecord], keep: str) -> None:
    """Raise RefusedError if they bring another Python than X.Y (empty: any)."""
    for record in records:
        version = str(record.version)
        if keep and record.name.normalized == "python" and version.split(".")[:2] != keep.split("."):
            raise RefusedError(
                f"it is for Python {version}, but mooring runs here on {keep}; name another --prefix"
            )


def compile_all(prefix: Path) -> None:
    """Compile the installed packages to bytecode, as conda does, so that workers need not at each start."""
    for packages in prefix.glob("lib/python3.*/site-packages"):
        python = prefix / "bin" / "python"
        command = [str(python), "-m", "compileall", "-q", "-j", "0", str(packages)]
        if python.exists():  # errors do not matter: such a file is not meant for this Python
            subprocess.run(command, check=False, capture_output=True)  # noqa: S603 (no shell)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        code
    )  # py-rattler's threads can crash an interpreter that is being finalised (0.28.0: signal 11)
