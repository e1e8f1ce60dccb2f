# mypy: disable-error-code=no-untyped-call
"""The mixin that adds what mooring needs to gunicorn's worker classes: readiness, the drain's limit, the end
with the arbiter.

It goes before the class that the user named (worker_classes.py). Every worker class calls `notify` in its
main loop and not earlier: the first call means that it accepts connections.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gunicorn.http.wsgi import Response
from gunicorn.workers.base import Worker

from mooring.engines import Serving
from mooring.engines.common.lifespan import Lifespan
from mooring.engines.common.stop import reserve
from mooring.engines.common.told import Told
from mooring.engines.common.websockets import WebSockets
from mooring.engines.gunicorn.refused import reason_of
from mooring.engines.gunicorn.report import Reports
from mooring.instrument import request_exit
from mooring.system import lifeline, process

ORDER = signal.SIGRTMIN + 6
"""The arbiter's order to drain: a real-time signal, since applications replace the handler of SIGTERM."""

MEINHELD = "meinheld.gmeinheld"  # the module of its worker class


@dataclass(slots=True)
class GunicornJob:
    """What a gunicorn worker needs from mooring; `lifespan` and `websockets` are set for ASGI applications.

    `signals` is the arbiter's queue: signals of a new worker go there until it has installed its handlers.
    """

    serving: Serving
    reports: Reports
    lifespan: Lifespan | None = None
    websockets: WebSockets | None = None
    signals: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    told: Told = field(default_factory=Told)


def interface_of(base: type) -> str:
    """The interface that a worker class serves: asgi, wsgi, or "" if unknown."""
    names = {f"{each.__module__}.{each.__qualname__}" for each in base.__mro__}
    if names & {
        "uvicorn_worker._workers.UvicornWorker",
        "uvicorn.workers.UvicornWorker",
        "gunicorn.workers.gasgi.ASGIWorker",
    }:
        return "asgi"
    if names & {
        "gunicorn.workers.sync.SyncWorker",
        "gunicorn.workers.gthread.ThreadWorker",
        "gunicorn.workers.base_async.AsyncWorker",
        f"{MEINHELD}.MeinheldWorker",
    }:
        return "wsgi"
    return ""


def for_requests(grace: float) -> float:
    """Seconds of the grace period for requests; the rest is for the lifespan shutdown after them."""
    return grace - reserve(grace)


class ClosedListener:
    """Stands for a listener that is closed: gunicorn asks a connection's listener for its address."""

    def __init__(self, name: Any) -> None:
        self._name = name

    def getsockname(self) -> Any:
        """The listener's own address."""
        return self._name


class MooringWorker(Worker):
    """The mixin before any worker class of gunicorn."""

    mooring_job: GunicornJob
    mooring_announced: bool
    mooring_told: Told
    force_exit = False  # for uvicorn's own handle_exit, as `should_exit`: engines/common/told.py

    @property
    def should_exit(self) -> bool:
        """Whether the drain has begun. An application that sets it, as it would with uvicorn, begins it."""
        return self.mooring_job.serving.drain.begun or not self.alive

    @should_exit.setter
    def should_exit(self, wanted: bool) -> None:
        if wanted and not self.should_exit:
            self.mooring_leave("the application has set should_exit")

    @property
    def mooring_server(self) -> Any:
        """Uvicorn's server, or what stands for it."""
        return self

    @property
    def mooring_idle(self) -> float:
        """Seconds that a connection may stay idle in a drain."""
        return self.mooring_job.serving.plan.settings.drain_idle

    def init_process(self) -> None:
        """Gunicorn calls this first after the fork, before gevent patches and before the user changes."""
        os.setpgid(0, 0)
        lifeline.hold()
        process.die_with_parent(self.ppid)
        self.mooring_told, self._captured_signals = self.mooring_job.told, list[int]()
        self.mooring_job.serving.drain.on_begin(self.mooring_tell)
        setting = self.cfg.settings["graceful_timeout"]  # the arbiter's copy keeps the whole time
        setting.value = for_requests(setting.value)
        super().init_process()

    def init_signals(self) -> None:
        """Install the handlers; handle a stop since the fork, which is in the arbiter's queue, unread."""
        super().init_signals()
        self.mooring_told.own(signal.getsignal(signal.SIGTERM))
        # It interrupts system calls, unlike gunicorn's TERM: in one that the kernel restarts (waitpid, recv)
        # no handler would run until its end, and the listener would stay open. Python restarts it itself.
        signal.signal(ORDER, self.mooring_drain_now)
        while not self.mooring_job.signals.empty():
            if self.mooring_job.signals.get() in {signal.SIGTERM, ORDER}:
                os.kill(os.getpid(), ORDER)

    def mooring_tell(self) -> None:
        """Tell the application that the drain begins."""
        self.mooring_told.tell(self.mooring_server)

    def mooring_drain_now(self, _number: int, frame: Any) -> None:
        """Handle the arbiter's order."""
        self.handle_exit(signal.SIGTERM, frame)

    def mooring_leave(self, why: str) -> None:
        """Drain without an order to; the arbiter replaces the worker."""
        self.log.error("%s: the worker finishes its requests and is replaced", why)
        os.kill(os.getpid(), ORDER)

    def mooring_asked(self, error: SystemExit | KeyboardInterrupt) -> bool:
        """Begin the drain if the application's handler of SIGTERM raised `error`; returns whether it did."""
        found = self.mooring_told.raised(error)
        if found:
            os.kill(os.getpid(), ORDER)
        return found

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin the drain. Gunicorn drops the wrapper's `Connection: close`, so make it send its own."""
        self.mooring_job.serving.doors.close()
        self.mooring_job.serving.drain.begin()
        response_class: Any = Response
        own = response_class.default_headers

        def default_headers(response: Any) -> Any:
            response.force_close()
            return own(response)

        if self.alive:
            response_class.default_headers = default_headers
        super().handle_exit(sig, frame)

    def handle_abort(self, sig: int, frame: Any) -> None:
        """Leave at once: the arbiter has found that this worker hangs."""
        request_exit.let_pass()
        super().handle_abort(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what cannot be parsed, or a request that failed."""
        if reason := reason_of(exc):
            self.mooring_job.serving.refused(reason, addr or None, str(exc) or type(exc).__name__)
        super().handle_error(req, client, addr, exc)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Leave at once."""
        request_exit.let_pass()
        super().handle_quit(sig, frame)

    def mooring_queued(self) -> Iterator[tuple[ClosedListener, Any, Any]]:
        """What was queued when the doors closed: listener, client's socket and address, as from accept()."""
        doors = self.mooring_job.serving.doors
        for each in doors.queued():
            yield ClosedListener(doors.names[each.listener]), socket.socket(fileno=each.fd), each.address

    def mooring_serve_queued(self) -> None:
        """Serve what was queued, one by one, within the grace period; for a worker with a single thread."""
        worker: Any = self
        end = time.monotonic() + self.cfg.graceful_timeout
        for listener, client, address in self.mooring_queued():
            if time.monotonic() < end:
                client.setblocking(True)
                self.notify()
                worker.handle(listener, client, address)

    def run(self) -> None:
        """Serve; report a failed lifespan startup to the process that started gunicorn."""
        try:
            super().run()
        finally:
            lifespan = self.mooring_job.lifespan
            if lifespan is not None and lifespan.failure is not None:
                self.mooring_job.reports.fail(lifespan.failure)

    def notify(self) -> None:
        """Send the heartbeat; the first one means that the worker accepts connections."""
        super().notify()
        if not self.booted or self.mooring_announced:
            return
        self.mooring_announced = True
        process.die_with_parent(self.ppid)  # the change of user has cleared it: prctl(2)
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.listen(self.cfg.backlog)  # asyncio sets 100, for all workers on this listener
        self.mooring_job.serving.booted()
        if self.mooring_job.reports.first():
            self.mooring_job.serving.ready()
        self.notify = super().notify  # type: ignore[method-assign]  # from now on it is gunicorn's own
