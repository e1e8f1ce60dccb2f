"""The interface between a worker and an engine: `serve(serving)`, which returns when the worker has drained.

Importing this module imports no engine. The list of engines: settings/engines.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Sequence
from socket import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from mooring.application.model import Application
from mooring.errors import ConfigurationError
from mooring.instrument.drain import DrainState
from mooring.settings.engines import require_http
from mooring.system.doors import Doors

if TYPE_CHECKING:
    from mooring.plan.plan import Plan
    from mooring.scoreboard.row import InFlight


class ArbiterRows(Protocol):
    """The scoreboard's rows for a worker that forks workers of its own, as an engine's arbiter does."""

    arbiter: int
    """The arbiter's pid."""
    index: int | None
    """The number of the reserved row; None if there is none."""

    def reserve(self) -> None:
        """Reserve a row for the next worker, before that worker is forked."""

    def settle(self, pid: int) -> None:
        """Note that the worker with the reserved row has this pid."""

    def leave(self, living: Container[int]) -> list[int]:
        """Mark the rows of workers whose pid is not in `living`; return the pids of these workers."""


class Serving(NamedTuple):
    """What an engine needs to serve in this process.

    `load` imports the application, checks it against the plan and wraps it in mooring's instrumentation; it
    raises ApplicationError or ConfigurationError. Without an arbiter the application is loaded before
    `serve`, and `load` returns that same object; with one, each of the arbiter's workers calls `load`.
    `sockets` (of `doors`) are inherited: bound, listening and non-blocking. No engine may make them blocking,
    since all workers share the flag (so do not use `socket.dup()`, which does that). The engine accepts on
    them and never unlinks a unix path. When its drain begins, it has `doors` close them, and serves what was
    queued there. The engine calls `ready` once, when it accepts connections: inside its event
    loop if it has one; with an arbiter, inside the arbiter's first worker that serves.
    Only an engine with an arbiter uses these: the arbiter calls `resized` with the number of workers that it
    wants after each TTIN or TTOU, and `gone` with the pid of each worker that has ended; `arbiter_rows` gives
    its workers their rows of the scoreboard, and each worker calls `booted` when it serves; `metrics` is the
    folder of the application's own metrics.
    On WSGI the engine calls `moved` for each part of a request's body that has come: a sign of life.
    `in_flight` returns this process's requests in flight, oldest first, for the warning about cut requests.
    `refused` counts and logs what an engine refuses of a client: one of REFUSALS (scoreboard/row.py), the
    peer, and a detail, or "" (instrument/refusals.py). `full` notes whether this worker has
    its most connections.

    The supervisor's order starts the engine's drain (`orders` is the descriptor on which it comes; below 0:
    none comes), and so does SIGTERM: accept nothing new, call `drain.begin` in the main thread, finish the
    requests in flight within `plan.settings.graceful_timeout` seconds, run the lifespan shutdown, return. The
    engine ignores SIGINT. Where it drains without such an order, it says why in `drain.unasked`, and calls
    `leaving` with that, so that a replacement is started meanwhile.
    """

    plan: Plan
    load: Callable[[], Application]
    doors: Doors
    ready: Callable[[], None]
    drain: DrainState
    resized: Callable[[int], None] = lambda _workers: None
    arbiter_rows: ArbiterRows | None = None
    booted: Callable[[], None] = lambda: None
    gone: Callable[[int], None] = lambda _pid: None
    metrics: str | None = None
    in_flight: Callable[[], Sequence[InFlight]] = lambda: ()
    refused: Callable[[str, object, str], None] = lambda _reason, _peer, _detail: None
    full: Callable[[bool], None] = lambda _full: None
    orders: int = -1
    leaving: Callable[[str], None] = lambda _why: None
    moved: Callable[[], None] = lambda: None

    @property
    def sockets(self) -> tuple[socket, ...]:
        """The listeners."""
        return self.doors.sockets


class Engine(Protocol):
    """What an engine's module offers."""

    def serve(self, serving: Serving) -> None:
        """Serve until drained. Raises ApplicationError if the application's lifespan startup fails."""


def check(name: str, plan: Plan) -> None:
    """Let an engine say what it cannot do, before it starts. Raises ConfigurationError."""
    require_http(name, plan.settings.http)
    look: Callable[[Plan], None] | None = getattr(load(name), "check", None)
    if look is not None:
        look(plan)


def load(name: str) -> Engine:
    """Import an engine's module. Raises ConfigurationError if its package is broken, or hidden by another."""
    try:
        return cast(Engine, importlib.import_module(f"mooring.engines.{name}.adapter"))
    except ImportError as error:
        text = " ".join(str(error).split())
        raise ConfigurationError(f"engine {name} cannot be imported: {text}") from None
