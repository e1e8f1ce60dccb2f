"""The pre-start hook: find it, run it once before any worker, return what a sourced shell script changed.

Not for resolving the settings again: the caller does that, with the environment that is returned. The rules
are in docs/profiles.md: a `.sh` is sourced with errexit, so that its exports and its `cd` take effect; any
other hook is a child process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mooring.commands.run.hook import GRACE, Hook, HookKind, run_blocking
from mooring.errors import ConfigurationError
from mooring.logs.log import Log
from mooring.settings.invocation import Invocation
from mooring.settings.resolve import DEFAULT, Resolved
from mooring.system.signals import SignalQueue, Stopped


def find(resolved: Resolved) -> Hook | None:
    """The hook that the settings name, or the profile's in the application root; None where there is none.

    Raises ConfigurationError where the named hook cannot be executed or is missing. The profiles of older
    images go on without a missing hook, as those images did.
    """
    given = resolved.settings.pre_start_path
    for path in _candidates(resolved):
        if path.is_file():
            return _hook(path, resolved)
    if given is None or resolved.profile.prestart_messages:
        return None
    origin = resolved.origins["pre_start_path"].text.removeprefix("env:")
    raise ConfigurationError(f"{origin}: the pre-start hook {_candidates(resolved)[0]} is not a file")


def _candidates(resolved: Resolved) -> list[Path]:
    given = resolved.settings.pre_start_path
    names = resolved.profile.prestart_names if given is None else (given,)
    return [Path(resolved.settings.app_root or ".", name) for name in names]


def _hook(path: Path, resolved: Resolved) -> Hook:
    """How a hook is run: by its suffix. Raises ConfigurationError where it is not executable.

    The profiles of older images give every file but .py to the shell, as those images did, unless a shebang
    names another program.
    """
    cwd = resolved.settings.app_root or "."
    path = Path(os.path.abspath(path))
    if path.suffix == ".py":
        return Hook(path, "python", sys.executable, cwd)
    program = _shebang(path)
    if path.suffix == ".sh" or (resolved.profile.prestart_messages and program in ("", "sh", "bash", "dash")):
        kind: HookKind = "sourced" if resolved.profile.prestart_sourced else "shell"
        exported = resolved.profile.prestart_exported
        return Hook(path, kind, "bash" if program == "bash" else "sh", cwd, exported)
    if not os.access(path, os.X_OK):
        raise ConfigurationError(
            f"the pre-start hook {path} is not executable: chmod +x it, or name it .sh (sourced) or .py"
        )
    return Hook(path, "executable", "", cwd)


def _shebang(path: Path) -> str:
    """The name of the program in a script's first line, without folder: bash for `#! /usr/bin/env bash`."""
    try:
        with path.open("rb") as file:
            line = file.readline(256)
    except OSError as error:
        raise ConfigurationError(f"the pre-start hook {path}: {error.strerror}") from None
    if not line.startswith(b"#!"):
        return "" if b"\0" not in line else "binary"
    words = [os.path.basename(word) for word in os.fsdecode(line[2:]).split()]
    words = [word for word in words if word != "env" and not word.startswith("-") and "=" not in word]
    return words[0] if words else ""


def messages(resolved: Resolved, hook: Hook | None) -> tuple[str, ...]:
    """The lines that the profile's older image printed on stdout before the hook's own output."""
    style = resolved.profile.prestart_messages
    candidates = _candidates(resolved)
    path = hook.path if hook else candidates[0] if candidates else Path()
    if style == "tiangolo":
        return f"Checking for script in {path}", (
            f"Running script {path}" if hook else f"There is no script {path}"
        )
    if style == "inboard":
        program = "python" if hook and hook.kind == "python" else "sh"
        found = f"Running pre-start script {program} {path}." if hook else "No pre-start script found."
        return f"Checking for pre-start script in {path}.", found
    return ()


def run_before(
    resolved: Resolved, invocation: Invocation, signals: SignalQueue, log: Log
) -> Invocation | None:
    """The start's first step: run the hook, if there is one. Returns the invocation for the next steps.

    Returns None where the run ends here, with exit code 0.
    """
    hook = find(resolved)
    for line in messages(resolved, hook):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if hook is None:
        return invocation
    log.info(f"running the pre-start hook {hook.path}")
    try:
        settings = resolved.settings
        result = run_blocking(
            hook,
            invocation.environ,
            signals,
            timeout=settings.pre_start_timeout,
            grace=min(GRACE, settings.graceful_timeout),
        )
    except Stopped as stop:
        log.info(str(stop))
        return None
    if result.ended:
        log.info(f"the pre-start hook {hook.path} ended the run: exit 0")
        return None
    if os.path.realpath(result.cwd) == os.path.realpath(hook.cwd):
        return invocation._replace(environ=result.environ)
    # without a given application root, the working folder that the hook left is the application root
    moved = Path(result.cwd) if resolved.rank("app_root") == DEFAULT else invocation.folder
    return invocation._replace(environ=result.environ, folder=moved, cwd=result.cwd)
