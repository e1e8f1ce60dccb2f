"""The engines: a protocol, and the one place that knows their names.

Importing this module imports no engine. An engine module has a function `serve(serving)`, which blocks until
the worker has drained.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from socket import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from mooring.drain import Drain
from mooring.errors import ConfigurationError

if TYPE_CHECKING:
    from mooring.plan import Plan
    from mooring.scoreboard import Request
    from mooring.seat import Desk


class Application(NamedTuple):
    """An imported application.

    `call` is the ASGI 3 or WSGI callable, `interface` asgi or wsgi, `framework` the distribution it comes
    from (lower case, "" where unknown), `target` its import string as `module:attribute`.
    """

    call: Callable[..., Any]
    interface: str
    framework: str
    target: str


class Serving(NamedTuple):
    """What an engine needs to serve in this process.

    `load` imports the application, checks it against the plan and wraps it in mooring's instrumentation; it
    raises ApplicationError or ConfigurationError. All engines but gunicorn find it loaded already and get the
    same object again; gunicorn calls it in each of its workers. `sockets` are bound, listening, non-blocking
    and inherited; nobody may change that, since all workers share the flag (so no `socket.dup()`, which makes
    them blocking). The engine accepts on them and never unlinks a unix path. `ready` is called once, when the
    engine accepts connections: inside a running event loop where there is one, in gunicorn's worker there.
    For gunicorn's arbiter alone: `resized` is told how many workers it wants after each TTIN or TTOU, `gone`
    the pid of each worker that has ended; `desk` gives its workers their rows of the scoreboard, and each of
    them calls `booted` when it serves; `metrics` is the folder of the application's own.
    `in_flight` gives this process's requests in flight, oldest first: what a drain cuts is named.

    The engine handles SIGTERM as the start of a drain: accept nothing new, call `drain.begin`, finish what is
    in flight within `plan.settings.graceful_timeout` seconds, run the lifespan shutdown, return. It ignores
    SIGINT.
    """

    plan: Plan
    load: Callable[[], Application]
    sockets: tuple[socket, ...]
    ready: Callable[[], None]
    drain: Drain
    resized: Callable[[int], None] = lambda _workers: None
    desk: Desk | None = None
    booted: Callable[[], None] = lambda: None
    gone: Callable[[int], None] = lambda _pid: None
    metrics: str | None = None
    in_flight: Callable[[], Sequence[Request]] = lambda: ()


class Engine(Protocol):
    """What an engine's module offers."""

    def serve(self, serving: Serving) -> None:
        """Serve until drained. Raises ApplicationError where the application's lifespan startup fails."""


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


def load(name: str) -> Engine:
    """The engine's module. Raises ConfigurationError where it cannot be imported: it is broken, or hidden."""
    try:
        return cast(Engine, importlib.import_module(f"mooring.engines.{name}"))
    except ImportError as error:
        text = " ".join(str(error).split())
        raise ConfigurationError(f"engine {name} cannot be imported: {text}") from None
