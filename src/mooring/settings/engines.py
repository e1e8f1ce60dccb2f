"""The engines by name: what each can do, and how it is installed. Imports none of them.

This is the only place that knows an engine by its name. Others ask a capability of its row:
`engines.row(name).has_arbiter`. How to add an engine: docs/contributing.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import NamedTuple

from mooring.errors import ConfigurationError


class EngineRow(NamedTuple):
    """One engine: what the rest of mooring has to know of it.

    - `module`: what is imported, and looked for to see whether it is installed; `install`: how to get it
    - `interfaces`: what it serves
    - `loggers`: the names in `logging` that are its own; `own_logging`: it sets up their handlers itself
    - `worker_classes`: the values of worker_class that it has (empty: mooring has no list of them)
    - `threaded_classes`: the only worker classes that use the plan's threads (empty: all do)
    - `speaks_http2`: whether it serves HTTP/2
    - `has_arbiter`: its process is an arbiter, which forks as many workers as the plan says: each imports the
      application itself and fills a row of the scoreboard, and the arbiter ends those that hang
    - `recycles_itself`: it replaces its workers after max_requests itself, and by nothing else
    - `debuggable`: whether a debugger and live reload work with its workers. One that is not gives way to
      another engine where only its configuration was given, not its name
    - `changes_user`: its own configuration may name the user that its workers run as
    - `own_preload`: how to turn on preloading of its own, as an error's text says it (empty: it has none, and
      mooring preloads)
    - `banner`: the line by which the users of the older images know that it serves, with `{name}` and `{url}`
    """

    module: str
    install: str
    interfaces: tuple[str, ...]
    loggers: tuple[str, ...] = ()
    worker_classes: tuple[str, ...] = ()
    threaded_classes: tuple[str, ...] = ()
    speaks_http2: bool = False
    has_arbiter: bool = False
    recycles_itself: bool = False
    debuggable: bool = True
    changes_user: bool = False
    own_logging: bool = False
    own_preload: str = ""
    banner: str = "{name} running on {url} (Press CTRL+C to quit)"


REGISTRY: Mapping[str, EngineRow] = {
    "uvicorn": EngineRow(
        module="uvicorn",
        install="pip install uvicorn",
        interfaces=("asgi",),
        loggers=("uvicorn", "uvicorn.error"),
    ),
    "granian": EngineRow(
        module="granian",
        install="pip install granian",
        interfaces=("asgi", "wsgi"),
        loggers=("granian", "_granian"),
        speaks_http2=True,
    ),
    "hypercorn": EngineRow(
        module="hypercorn",
        install="pip install 'mooring[hypercorn]'",
        interfaces=("asgi", "wsgi"),
        loggers=("hypercorn", "hypercorn.error"),
        worker_classes=("asyncio", "uvloop", "trio"),
        speaks_http2=True,
        banner="Running on {url} (CTRL + C to quit)",
    ),
    "gunicorn": EngineRow(
        module="gunicorn",
        install="pip install 'mooring[gunicorn]'",
        interfaces=("asgi", "wsgi"),
        loggers=("gunicorn.error",),
        threaded_classes=("gthread",),
        has_arbiter=True,
        recycles_itself=True,
        debuggable=False,
        changes_user=True,
        own_logging=True,
        own_preload="set preload_app = True in its configuration or GUNICORN_CMD_ARGS=--preload",
    ),
}


DEFAULTS: Mapping[str, str] = {"asgi": "uvicorn", "wsgi": "granian"}

_AUTO = EngineRow(module="", install="", interfaces=tuple(DEFAULTS))


def row(name: str) -> EngineRow:
    """An engine's row; for auto, the capabilities that all of DEFAULTS share."""
    return _AUTO if name == "auto" else REGISTRY[name]


def installed() -> list[str]:
    """The names of the engines that can be imported."""
    return [name for name, each in REGISTRY.items() if importlib.util.find_spec(each.module) is not None]


def offered() -> str:
    """All engines, each that is missing with the way to install it."""
    there = installed()
    return ", ".join(name if name in there else f"{name} ({each.install})" for name, each in REGISTRY.items())


def require(name: str) -> None:
    """Raise ConfigurationError, with the way to install it, where an engine is not there."""
    if name not in installed():
        raise ConfigurationError(
            f"engine {name} is not installed: {REGISTRY[name].install}; "
            f"installed: {', '.join(installed()) or 'none'}"
        )


def require_http(name: str, http: str) -> None:
    """Raise ConfigurationError where an engine does not serve a version of HTTP: 1, 2 or auto."""
    if http == "2" and not REGISTRY[name].speaks_http2:
        able = [other for other, each in REGISTRY.items() if each.speaks_http2]
        raise ConfigurationError(f"engine {name} serves no HTTP/2; these do: {', '.join(able)}")


def choose(name: str, interface: str) -> str:
    """The engine for an interface: `name` itself, or for auto the default one.

    Raises ConfigurationError where it is not installed or cannot serve the interface.
    """
    chosen = DEFAULTS[interface] if name == "auto" else name
    if interface not in REGISTRY[chosen].interfaces:
        able = [other for other, each in REGISTRY.items() if interface in each.interfaces]
        raise ConfigurationError(
            f"engine {chosen} cannot serve a {interface.upper()} application; these can: {', '.join(able)}"
        )
    require(chosen)
    return chosen


def loggers(*, own_logging: bool = True) -> tuple[str, ...]:
    """The names of all engines' loggers, or without those of engines that set them up themselves."""
    rows = [each for each in REGISTRY.values() if own_logging or not each.own_logging]
    return tuple(name for each in rows for name in each.loggers)


def logger_roots() -> frozenset[str]:
    """The first parts of the names of all engines' loggers: a record of theirs is known by it."""
    return frozenset(name.partition(".")[0] for each in REGISTRY.values() for name in each.loggers)
