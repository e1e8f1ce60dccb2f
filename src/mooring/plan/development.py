"""What live reload and a debugger change about the plan.

Pure; the reloading itself is in supervisor/reload/watcher.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mooring.settings import engines

if TYPE_CHECKING:
    from mooring.plan.server_config.find import ServerConf
    from mooring.settings.resolve import Resolved
    from mooring.settings.table import Settings

GRACE = 1.0
"""Seconds that a drain may take: an open stream or WebSocket must not delay a reload for longer."""
IDLE = 0.25
"""Seconds that an idle connection may hold a drain up: browsers keep some, and no other worker serves."""

_DAY = 86400.0
_WEAK = ("default", "profile:")


def gives_way(resolved: Resolved, conf: ServerConf | None) -> str:
    """The engine that another one replaces in development: its configuration was given, but the user named no
    engine, and its workers cannot be debugged. Empty: none.
    """
    if conf is None or not conf.kind or engines.row(conf.kind).debuggable:
        return ""
    return conf.kind if resolved.origins["engine"].text.startswith(_WEAK) else ""


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
    if settings.drain_idle > IDLE:
        found["drain_idle"] = (IDLE, "the most with live reload")
    unwanted = gives_way(resolved, conf)
    if unwanted:
        found["access_log"] = (resolved.settings.access_log, f"live reload runs without {unwanted}")
    found["preload"] = ("off", "live reload imports at each change")
    return {name: (value, why) for name, (value, why) in found.items() if value != getattr(settings, name)}
