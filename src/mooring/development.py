"""What live reload and a debugger change about the plan. Pure; the reloading itself is in reloader.py."""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mooring.errors import ApplicationError

if TYPE_CHECKING:
    from mooring.discovery import Target
    from mooring.plan import Plan
    from mooring.resolve import Resolved
    from mooring.serverconf import ServerConf
    from mooring.settings import Settings

GRACE = 2.0
"""Seconds that a drain may take: an open stream or WebSocket must not hold a reload for longer."""

_DAY = 86400.0
_WEAK = ("default", "profile:")


def without_gunicorn(resolved: Resolved, conf: ServerConf | None) -> bool:
    """Whether another engine takes over from gunicorn: its configuration was given, but not its name."""
    return conf is not None and conf.kind == "gunicorn" and resolved.origins["engine"].text.startswith(_WEAK)


def changes(resolved: Resolved, settings: Settings, conf: ServerConf | None) -> dict[str, tuple[Any, str]]:
    """Settings by name, each with its value in development and why. `settings` has what `conf` sets."""
    found: dict[str, tuple[Any, str]] = {}
    if settings.debugpy is not None:
        why = "a debugger may hold the worker"
        found.update(timeout=(0.0, why), boot_timeout=(_DAY, why), preload=("off", why))
    if not settings.reload:
        return {name: value for name, value in found.items() if value[0] != getattr(settings, name)}
    if settings.graceful_timeout > GRACE:
        found["graceful_timeout"] = (GRACE, "the most with live reload")
    if without_gunicorn(resolved, conf):
        found["access_log"] = (resolved.settings.access_log, "live reload runs without gunicorn")
    found["preload"] = ("off", "live reload imports at each change")
    return {name: (value, why) for name, (value, why) in found.items() if value != getattr(settings, name)}


def engine_log_level(plan: Plan) -> str:
    """The engine's own log level: its farewells and greetings at every reload hide what matters.

    A profile's users have read them all along, and look for them.
    """
    level = plan.settings.log_level
    return "warning" if plan.settings.reload and not plan.profile.older and level == "info" else level


def banner(plan: Plan, url: str) -> str:
    """The line by which the older images' users know, with live reload, that it serves."""
    if plan.engine == "hypercorn":
        return f"Running on {url} (CTRL + C to quit)"
    return f"{plan.engine.capitalize()} running on {url} (Press CTRL+C to quit)"


def check_found(target: Target) -> None:
    """Raise ApplicationError where there is no such module: a name misspelt is not mended by a save.

    A module that is there, and broken, is: it is waited for. Nothing is imported.
    """
    top, *rest = target.module.split(".")
    own = [folder for folder in target.search if (folder / top).is_dir() or (folder / f"{top}.py").is_file()]
    if own and (not rest or any(_is_module(folder.joinpath(top, *rest)) for folder in own)):
        return
    if not own and _is_installed(top):
        return
    looked = " or ".join(map(str, target.search))
    raise ApplicationError(f"no application found: there is no module {target.module} in {looked}")


def _is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def share_terminal() -> None:
    """In the worker: where there is a terminal, be in its foreground, so that breakpoint() can read from it.

    That is the supervisor's process group; a worker's own would be in the background (termios(3)). Ctrl-C
    then reaches the worker as well, which ignores it and leaves when the supervisor says so.
    """
    if os.isatty(0):
        with contextlib.suppress(OSError):  # a supervisor that is about to end
            os.setpgid(0, os.getpgid(os.getppid()))
