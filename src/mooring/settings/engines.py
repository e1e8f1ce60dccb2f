"""The engines by name: what each can do, and how it is installed. Imports none of them.

No other file decides by an engine's name: it asks a capability of its row, `engines.row(name).has_arbiter`.
The files that name an engine all the same, such as those that read gunicorn's and hypercorn's own settings,
are listed with their reasons in tests/unit/settings/test_engines.py. How to add an engine:
docs/contributing.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Literal, NamedTuple

from mooring.errors import ConfigurationError


class EngineRow(NamedTuple):
    """One engine: what the rest of mooring has to know about it.

    - `module`: the module to import; the engine is installed where it is found
    - `install`: the command that installs it
    - `interfaces`: the interfaces that it serves: asgi, wsgi
    - `loggers`: the names of its loggers; `own_logging`: it sets up their handlers itself
    - `access_logger`: the logger of its access log; `access_record`: what its records hold
      (logs/access/records.py)
    - `worker_classes`: the values that the setting worker_class may have (empty: mooring has no list)
    - `threaded_classes`: the worker classes that use the plan's threads (empty: all do)
    - `wsgi_websockets`: whether WSGI applications get what libraries for WebSockets need
    - `speaks_http2`: whether it serves HTTP/2
    - `has_arbiter`: its process is an arbiter, which forks as many workers as the plan says: each imports the
      application itself and has a row of the scoreboard, and the arbiter ends workers that hang
    - `recycles_itself`: it replaces its workers after max_requests requests itself, and for no other reason
    - `debuggable`: whether a debugger and live reload work with its workers. For these, another engine takes
      the place of one that is not, unless the settings name it: its configuration alone does not count
    - `changes_user`: its own configuration may name the user that its workers run as
    - `own_preload`: how to turn on its own preloading, in the words of an error message (empty: it has none,
      and mooring preloads)
    - `banner`: the line that tells users of the older images that it serves, with `{name}` and `{url}`
    """

    module: str
    install: str
    interfaces: tuple[str, ...]
    loggers: tuple[str, ...] = ()
    access_logger: str = ""
    access_record: Literal["call", "atoms", "fields"] = "atoms"
    worker_classes: tuple[str, ...] = ()
    threaded_classes: tuple[str, ...] = ()
    wsgi_websockets: bool = False
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
        access_logger="uvicorn.access",
        access_record="call",
    ),
    "granian": EngineRow(
        module="granian",
        install="pip install granian",
        interfaces=("asgi", "wsgi"),
        loggers=("granian", "_granian"),
        access_logger="granian.access",
        access_record="fields",
        speaks_http2=True,
    ),
    "hypercorn": EngineRow(
        module="hypercorn",
        install="pip install 'mooring[hypercorn]'",
        interfaces=("asgi", "wsgi"),
        loggers=("hypercorn", "hypercorn.error"),
        access_logger="hypercorn.access",
        worker_classes=("asyncio", "uvloop", "trio"),
        speaks_http2=True,
        banner="Running on {url} (CTRL + C to quit)",
    ),
    "gunicorn": EngineRow(
        module="gunicorn",
        install="pip install 'mooring[gunicorn]'",
        interfaces=("asgi", "wsgi"),
        loggers=("gunicorn.error",),
        access_logger="gunicorn.access",
        threaded_classes=("gthread",),
        wsgi_websockets=True,
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
    """An engine's row; for `auto`, a row with the capabilities that all engines of DEFAULTS share."""
    return _AUTO if name == "auto" else REGISTRY[name]


def installed() -> list[str]:
    """The names of the engines that can be imported."""
    return [name for name, each in REGISTRY.items() if importlib.util.find_spec(each.module) is not None]


def offered() -> str:
    """The names of all engines, as one text; one that is not installed is followed by its install command."""
    there = installed()
    return ", ".join(name if name in there else f"{name} ({each.install})" for name, each in REGISTRY.items())


def require(name: str) -> None:
    """Raise ConfigurationError, with the install command, where an engine is not installed."""
    if name not in installed():
        raise ConfigurationError(
            f"engine {name} is not installed: {REGISTRY[name].install}; "
            f"installed: {', '.join(installed()) or 'none'}"
        )


def require_http(name: str, http: str) -> None:
    """Raise ConfigurationError where an engine does not serve the HTTP version `http`: 1, 2 or auto."""
    if http == "2" and not REGISTRY[name].speaks_http2:
        able = [other for other, each in REGISTRY.items() if each.speaks_http2]
        raise ConfigurationError(f"engine {name} serves no HTTP/2; these do: {', '.join(able)}")


def choose(name: str, interface: str) -> str:
    """The name of the engine for an interface: `name`, or for `auto` the default engine.

    Raises ConfigurationError where the engine is not installed or cannot serve the interface.
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
    """The names of all engines' loggers; unless `own_logging`, without those of engines that set them up."""
    rows = [each for each in REGISTRY.values() if own_logging or not each.own_logging]
    return tuple(name for each in rows for name in each.loggers)


def access_loggers() -> dict[str, Literal["call", "atoms", "fields"]]:
    """The engines' access loggers by name, and what the records of each hold."""
    return {each.access_logger: each.access_record for each in REGISTRY.values()}


def server_modules() -> frozenset[str]:
    """The first parts of the names of all engines' modules, those of worker classes beside them included."""
    return logger_roots() | {f"{name}_worker" for name in REGISTRY}


def logger_roots() -> frozenset[str]:
    """The first parts of the names of all engines' loggers, by which an engine's log record is recognised."""
    return frozenset(name.partition(".")[0] for each in REGISTRY.values() for name in each.loggers)
