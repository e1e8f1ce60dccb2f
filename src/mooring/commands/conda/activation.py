# ruff: noqa: T201
"""Activation: the shell code of `conda activate`, `conda init`, and the environment of `conda run`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mooring.commands.conda import places
from mooring.commands.conda.condarc import Configuration
from mooring.commands.conda.places import Places
from mooring.errors import ConfigurationError, ToolError

SHELLS = ("posix", "bash", "zsh", "sh", "dash", "ash")
_FILES = {"bash": ".bashrc", "zsh": ".zshrc"}
_BLOCK = re.compile(r"\n?# >>> conda initialize >>>\n.*?# <<< conda initialize <<<\n", re.DOTALL)


def hook(at: Places, configuration: Configuration) -> str:
    """What `eval "$(conda shell.bash hook)"` is given."""
    code = (at.root / "etc/profile.d/conda.sh").read_text()
    return code + ("conda activate base\n" if configuration.activates_base else "")


def shell(at: Places, configuration: Configuration, words: Sequence[str]) -> str:
    """The code for the shell's `conda activate` and `conda deactivate`."""
    command, *rest = words or ("hook",)
    stack = "--stack" in rest
    rest = [word for word in rest if not word.startswith("-")]
    if command == "hook":
        return hook(at, configuration)
    if command == "activate" and len(rest) <= 1:
        return _activate(at, at.activated(rest[0] if rest else ""), stack, configuration.changes_prompt)
    if command in ("deactivate", "reactivate") and not rest:
        return _deactivate(at) if command == "deactivate" else ""
    raise ConfigurationError(f"shell {' '.join(words)}: there are hook, activate [NAME], deactivate")


def _level(at: Places) -> int:
    text = at.environ.get("CONDA_SHLVL", "")
    return int(text) if text.isdigit() else 0


def _activate(at: Places, prefix: Path, stack: bool, prompt: bool) -> str:
    level, before = _level(at), at.environ.get("CONDA_PREFIX", "")
    again = level > 0 and before == str(prefix)
    path = at.environ.get("PATH", "")
    if level and before and not stack:
        path = _without(path, f"{before}/bin")
    new = _active(at, prefix, path)
    lines = _scripts(before, "deactivate.d") if level else []
    if not again:
        new["CONDA_SHLVL"] = str(level + 1)
        if level:
            new[f"CONDA_PREFIX_{level}"] = before
    if level and before and not again:
        lines += [f"unset {name}" for name in places.variables(Path(before))]
    return _text(
        [*lines, *_exports(new), *_prompt(at, new if prompt else {}), *_scripts(prefix, "activate.d")]
    )


def _deactivate(at: Places) -> str:
    level, before = _level(at), at.environ.get("CONDA_PREFIX", "")
    if not level or not before:
        return ""
    path = _without(at.environ.get("PATH", ""), f"{before}/bin")
    lines = _scripts(before, "deactivate.d") + [f"unset {name}" for name in places.variables(Path(before))]
    outer = at.environ.get(f"CONDA_PREFIX_{level - 1}", "")
    if level == 1 or not outer:
        new = {"PATH": path, "CONDA_SHLVL": "0"}
        lines += ["unset CONDA_PREFIX CONDA_DEFAULT_ENV"]
        return _text([*lines, *_prompt(at, {}), "unset CONDA_PROMPT_MODIFIER", *_exports(new)])
    new = _active(at, Path(outer), path) | {"CONDA_SHLVL": str(level - 1)}
    lines += [f"unset CONDA_PREFIX_{level - 1}"]
    return _text([*lines, *_exports(new), *_prompt(at, new), *_scripts(outer, "activate.d")])


def _active(at: Places, prefix: Path, path: str) -> dict[str, str]:
    """The variables of an active environment."""
    name = at.name(prefix)
    return {
        "PATH": os.pathsep.join(filter(None, (f"{prefix}/bin", _without(path, f"{prefix}/bin")))),
        "CONDA_PREFIX": str(prefix),
        "CONDA_DEFAULT_ENV": name,
        "CONDA_PROMPT_MODIFIER": f"({name}) ",
        **places.variables(prefix),
    }


def _without(path: str, folder: str) -> str:
    """PATH without the first mention of a folder."""
    folders = path.split(os.pathsep)
    if folder in folders:
        folders.remove(folder)
    return os.pathsep.join(folders)


def _prompt(at: Places, new: Mapping[str, str]) -> list[str]:
    """The new prompt, where the shell has one."""
    old = shlex.quote(at.environ.get("CONDA_PROMPT_MODIFIER", ""))
    return [f'[ -z "${{PS1:-}}" ] || PS1={shlex.quote(new.get("CONDA_PROMPT_MODIFIER", ""))}"${{PS1#{old}}}"']


def _exports(values: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def _scripts(prefix: Path | str, folder: str) -> list[str]:
    """Lines that run what packages have for their activation."""
    found = sorted(Path(prefix, "etc/conda", folder).glob("*.sh"))
    return [f". {shlex.quote(str(each))}" for each in found]


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def run(at: Places, words: Sequence[str]) -> int:
    """`conda run`: becomes the command, so that signals and output are its own."""
    name = path = folder = ""
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word == "--":
            break
        if option in ("-n", "--name", "-p", "--prefix", "--cwd"):
            if not equals and not rest:
                raise ConfigurationError(f"run {option}: its value is missing")
            value = value if equals else rest.pop(0)
            name, path, folder = (
                value if option in ("-n", "--name") else name,
                value if option in ("-p", "--prefix") else path,
                value if option == "--cwd" else folder,
            )
        elif word not in ("--no-capture-output", "--live-stream", "-s", "-v", "-vv", "--verbose"):
            raise ConfigurationError(
                f"run {word}: known are -n, -p, --cwd, --no-capture-output and --live-stream"
            )
    if not rest:
        raise ConfigurationError("run: the command is missing")
    prefix = at.existing(name, path)
    level = at.environ.get("CONDA_SHLVL", "")
    environ = {
        **at.environ,
        **_active(at, prefix, at.environ.get("PATH", "")),
        "CONDA_SHLVL": level if level.isdigit() and int(level) else "1",
        "CONDA_EXE": str(at.root / "bin/conda"),
    }
    if folder:
        os.chdir(folder)
    scripts = _scripts(prefix, "activate.d")
    if scripts:
        bash = shutil.which("bash", path=environ["PATH"]) or "/bin/sh"
        rest = [bash, "-c", _text([*scripts, 'exec "$@"']), rest[0], *rest]
    sys.stdout.flush()
    try:
        os.execvpe(rest[0], rest, environ)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        raise ToolError(f"run {rest[0]}: {error.strerror}", 126 if error.errno == 13 else 127) from None


def init(at: Places, _: Configuration, words: Sequence[str]) -> int:
    """`conda init`: the hook in the user's start-up files."""
    reverse, dry = "--reverse" in words, bool({"-d", "--dry-run"} & set(words))
    shells = [word for word in words if not word.startswith("-")] or ["bash"]
    if "--all" in words:
        shells = list(_FILES)
    for name in shells:
        if name not in _FILES:
            raise ConfigurationError(
                f"init {name}: bash and zsh alone; others: . {at.root}/etc/profile.d/conda.sh"
            )
        file = at.home / _FILES[name]
        old = file.read_text() if file.exists() else ""
        block = (
            "\n# >>> conda initialize >>>\n"
            f'. "{at.root}/etc/profile.d/conda.sh"\n'
            f'eval "$("$CONDA_EXE" shell.{name} hook)"\n'
            "# <<< conda initialize <<<\n"
        )
        new = _BLOCK.sub("", old) + ("" if reverse else block)
        if new != old and not dry:
            file.write_text(new)
        print(f"{'no change' if new == old else 'modified'}      {file}")
    return 0
