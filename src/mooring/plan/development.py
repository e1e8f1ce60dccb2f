"""What live reload and a debugger change about the plan.

Pure; the reloading itself is in supervisor/reload/watcher.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mooring.plan.server_config.find import ServerConf
    from mooring.settings.resolve import Resolved
    from mooring.settings.table import Settings

GRACE = 2.0
"""Seconds that a drain may take: an open stream or WebSocket must not delay a reload for longer."""

_DAY = 86400.0
_WEAK = ("default", "profile:")


def without_gunicorn(resolved: Resolved, conf: ServerConf | None) -> bool:
    """Whether another engine replaces gunicorn: its configuration was given, but the user named no engine."""
    return conf is not None and conf.kind == "gunicorn" and resolved.origins["engine"].text.startswith(_WEAK)


def changes(resolved: Resolved, settings: Settings, conf: ServerConf | None) -> dict[str, tuple[Any, str]]:
    """The settings that live reload or a debugger changes, by name: each with its new value and the reason.

    `settings` already has the values that `conf` sets.
    """
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
