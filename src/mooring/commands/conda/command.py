# ruff: noqa: T201
"""The command itself: which word is which command, and one line for what goes wrong."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mooring.commands.conda import activation, listing, options
from mooring.commands.conda.apart import apart
from mooring.commands.conda.condarc import Configuration, config
from mooring.commands.conda.places import Places
from mooring.errors import ConfigurationError, MooringError

_INSTALLING = {
    "install": "install",
    "create": "create",
    "update": "update",
    "upgrade": "update",
    "remove": "remove",
    "uninstall": "remove",
}
_BEFORE = ("-q", "-v", "-y", "--yes", "--quiet", "--no-plugins", "--verbose")
_KNOWN = "install, create, update, remove, env, list, run, clean, activate, init, config, info"
_INSTEAD = {
    "search": "look at https://anaconda.org",
    "build": "build packages in an image of conda's own",
    "pack": "copy /opt/conda from a build stage",
    "lock": "lock outside the image, and install the conda-lock.yml",
}


def main(root: Path, words: Sequence[str], environ: Mapping[str, str], called: str = "conda") -> int:
    """Run the command `words` on the environments at `root`. Returns the exit code.

    2 is for what cannot be asked, 1 for what failed; what pip or a command of `run` returns is returned.
    """
    return _reported(Places(root, environ), called, lambda at: _run(at, list(words), called))


def _reported(at: Places, called: str, work: Callable[[Places], int]) -> int:
    """The work's exit code, with one line for what went wrong."""
    try:
        return work(at)
    except MooringError as error:
        print(f"{called}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{called}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a defect, of ours or of py-rattler's
        print(f"{called}: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _run(at: Places, words: list[str], called: str) -> int:
    while words and words[0] in _BEFORE:
        words.pop(0)
    command, *rest = words or ["--help"]
    if command in ("-V", "--version"):
        print(listing.version(called))
        return 0
    if command in ("-h", "--help", "help") or ({"-h", "--help"} & set(rest) and command != "run"):
        print(f"{called}: mooring's own, by py-rattler, not {called} itself; it knows {_KNOWN}")
        return 0
    if command == "run":
        return activation.run(at, rest)
    configuration = Configuration(at)
    if command.startswith("shell."):
        return _shell(at, configuration, command, rest, called)
    if command == "env":
        return _environment(at, configuration, rest, called)
    if command in _INSTALLING:
        verb = _INSTALLING[command]
        work = functools.partial(_packages, configuration=configuration, verb=verb, words=rest)
        return apart(at, lambda at: _reported(at, called, work))
    if command in _OTHERS:
        return _OTHERS[command](at, configuration, rest)
    raise ConfigurationError(_unknown(at, command, called))


def _packages(at: Places, configuration: Configuration, verb: str, words: Sequence[str]) -> int:
    from mooring.commands.conda import packages  # py-rattler is imported by those who need it

    return int(getattr(packages, verb)(at, configuration, words))


def _unknown(at: Places, command: str, called: str) -> str:
    if command in ("activate", "deactivate"):
        return (
            f'{command} changes a shell, which has to be told how: eval "$({called} shell.bash hook)", '
            f". {at.root}/etc/profile.d/conda.sh, or {called} init bash; or {called} run -n NAME COMMAND"
        )
    instead = _INSTEAD.get(command, "a miniforge base has conda itself: build argument BASE")
    return f"{command}: this is mooring's {called}, not {called} itself, and knows {_KNOWN}; {instead}"


def _shell(at: Places, configuration: Configuration, command: str, rest: list[str], called: str) -> int:
    kind = command.removeprefix("shell.").partition("+")[0]
    if kind not in activation.SHELLS:
        raise ConfigurationError(
            f"{command}: activation is for {', '.join(activation.SHELLS)}; {called} run works in any"
        )
    sys.stdout.write(activation.shell(at, configuration, rest))
    return 0


def _environment(at: Places, configuration: Configuration, rest: list[str], called: str) -> int:
    verb, *more = rest or [""]
    if verb in ("create", "update", "remove"):
        work = functools.partial(_packages, configuration=configuration, verb="environment", words=rest)
        return apart(at, lambda at: _reported(at, called, work))
    if verb == "list":
        return listing.environments(at, configuration, more)
    if verb == "export":
        return listing.export(at, configuration, more)
    raise ConfigurationError(
        f"env {verb}: this is mooring's {called}; it knows env create, update, list, remove, export"
    )


def _clean(at: Places, _: Configuration, words: Sequence[str]) -> int:
    """`conda clean`: downloads are gone already, unless their folder is a mount or was asked for."""
    parser = options.Parser(prog="conda clean")
    what = ("-a --all", "-p --packages", "-t --tarballs", "-i --index-cache", "-f --force-pkgs-dirs")
    for each in (*what, "-c --tempfiles", "-l --logfiles", "-s --source-cache"):
        parser.add_argument(*each.split(), dest="what", action="store_true")
    for each in ("-y --yes", "-q --quiet", "-v --verbose", "--json"):
        parser.add_argument(*each.split(), action="store_true")
    parser.add_argument("-d", "--dry-run", action="store_true")
    given = parser.parse_args(words)
    if not given.what:
        raise ConfigurationError("clean: what? --all")
    if at.downloads.is_dir() and not given.dry_run:
        for entry in at.downloads.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    return 0


_OTHERS = {
    "list": listing.packages,
    "info": listing.info,
    "export": listing.export,
    "config": config,
    "clean": _clean,
    "init": activation.init,
}


def program(file: str) -> None:
    """What ROOT/bin/conda runs; `file` is its own path."""
    here = Path(os.path.realpath(file))
    code = main(here.parents[1], sys.argv[1:], dict(os.environ), Path(sys.argv[0]).name)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        code
    )  # as commands/install/conda.py does: py-rattler's threads can crash an interpreter that ends
