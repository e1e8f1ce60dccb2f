"""What an engine is to a worker: `serve(serving)` of its module, which blocks until the worker has drained.

Importing this module imports no engine. Which engines there are: settings/engines.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Sequence
from socket import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from mooring.application.model import Application
from mooring.errors import ConfigurationError
from mooring.instrument.drain import Drain
from mooring.settings.engines import require_http

if TYPE_CHECKING:
    from mooring.plan.plan import Plan
    from mooring.scoreboard.row import InFlight


class ArbiterRows(Protocol):
    """The scoreboard's rows of a worker that forks workers of its own, as gunicorn's arbiter does."""

    arbiter: int
    """The arbiter's pid."""
    index: int | None
    """The row that is reserved; None where there is none."""

    def reserve(self) -> None:
        """Choose the next worker's row, before it is forked."""

    def settle(self, pid: int) -> None:
        """The worker with the reserved row has that pid."""

    def leave(self, living: Container[int]) -> list[int]:
        """Mark the rows of workers that are gone; their pids."""


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
    desk: ArbiterRows | None = None
    booted: Callable[[], None] = lambda: None
    gone: Callable[[int], None] = lambda _pid: None
    metrics: str | None = None
    in_flight: Callable[[], Sequence[InFlight]] = lambda: ()


class Engine(Protocol):
    """What an engine's module offers."""

    def serve(self, serving: Serving) -> None:
        """Serve until drained. Raises ApplicationError where the application's lifespan startup fails."""


def check(name: str, plan: Plan) -> None:
    """Let an engine say what it cannot do, before it starts. Raises ConfigurationError."""
    require_http(name, plan.settings.http)
    look: Callable[[Plan], None] | None = getattr(load(name), "check", None)
    if look is not None:
        look(plan)


def load(name: str) -> Engine:
    """The engine's module. Raises ConfigurationError where it cannot be imported: it is broken, or hidden."""
    try:
        return cast(Engine, importlib.import_module(f"mooring.engines.{name}.adapter"))
    except ImportError as error:
        text = " ".join(str(error).split())
        raise ConfigurationError(f"engine {name} cannot be imported: {text}") from None
