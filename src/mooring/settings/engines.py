"""The engines by name: what each serves, and how it is installed. Imports none of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import NamedTuple

from mooring.errors import ConfigurationError


class Registered(NamedTuple):
    """One row of the registry: the module to look for, the interfaces it serves, and how to install it."""

    module: str
    interfaces: tuple[str, ...]
    install: str
    worker_classes: tuple[str, ...] = ()


REGISTRY: Mapping[str, Registered] = {
    "uvicorn": Registered("uvicorn", ("asgi",), "pip install uvicorn"),
    "granian": Registered("granian", ("asgi", "wsgi"), "pip install granian"),
    "hypercorn": Registered(
        "hypercorn", ("asgi", "wsgi"), "pip install 'mooring[hypercorn]'", ("asyncio", "uvloop", "trio")
    ),
    "gunicorn": Registered("gunicorn", ("asgi", "wsgi"), "pip install 'mooring[gunicorn]'"),
}


DEFAULTS: Mapping[str, str] = {"asgi": "uvicorn", "wsgi": "granian"}


def installed() -> list[str]:
    """The names of the engines that can be imported."""
    return [name for name, row in REGISTRY.items() if importlib.util.find_spec(row.module) is not None]


def offered() -> str:
    """All engines, each that is missing with the way to install it."""
    there = installed()
    return ", ".join(name if name in there else f"{name} ({row.install})" for name, row in REGISTRY.items())


def require(name: str) -> None:
    """Raise ConfigurationError, with the way to install it, where an engine is not there."""
    if name not in installed():
        raise ConfigurationError(
            f"engine {name} is not installed: {REGISTRY[name].install}; "
            f"installed: {', '.join(installed()) or 'none'}"
        )


def choose(name: str, interface: str) -> str:
    """The engine for an interface: `name` itself, or for auto the default one.

    Raises ConfigurationError where it is not installed or cannot serve the interface.
    """
    chosen = DEFAULTS[interface] if name == "auto" else name
    if interface not in REGISTRY[chosen].interfaces:
        able = [other for other, row in REGISTRY.items() if interface in row.interfaces]
        raise ConfigurationError(
            f"engine {chosen} cannot serve a {interface.upper()} application; these can: {', '.join(able)}"
        )
    require(chosen)
    return chosen
