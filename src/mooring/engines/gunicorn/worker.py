# mypy: disable-error-code=no-untyped-call
"""gunicorn's worker classes with what mooring needs added: readiness, the drain's limit, death with the
arbiter.

It goes before whatever class the user named (worker_classes.py). Every class calls `notify` from its main
loop, and from nowhere before: the first call is when it accepts connections.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
from dataclasses import dataclass, field
from typing import Any

from gunicorn.http.wsgi import Response
from gunicorn.workers.base import Worker

from mooring.engines import Serving
from mooring.engines.common.lifespan import Lifespan
from mooring.engines.common.websockets import WebSockets
from mooring.engines.gunicorn.report import Reports
from mooring.system import process

MEINHELD = "meinheld.gmeinheld"  # the module of its worker class
_RESERVE, _RESERVE_SHARE = 1.0, 0.2  # of the grace period, what requests leave for the lifespan shutdown


@dataclass(slots=True)
class GunicornJob:
    """What a worker needs of mooring's; `lifespan` and `websockets` are set with an ASGI application.

    `signals` is the arbiter's queue. A worker has it too until it takes the signals itself.
    """

    serving: Serving
    reports: Reports
    lifespan: Lifespan | None = None
    websockets: WebSockets | None = None
    signals: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)


def interface_of(base: type) -> str:
    """The interface that a worker class serves, "" where that is not known."""
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
    """The seconds of the grace period that requests have; the rest is for what comes after them."""
    return max(0.0, grace - min(_RESERVE, grace * _RESERVE_SHARE))


class MooringWorker(Worker):
    """Goes before any worker class of gunicorn's."""

    mooring_job: GunicornJob
    mooring_announced: bool

    @property
    def mooring_idle(self) -> float:
        """Seconds that a connection may stay idle in a drain."""
        return self.mooring_job.serving.plan.settings.drain_idle

    def init_process(self) -> None:
        """First thing after the fork, before gevent patches and gunicorn changes the user."""
        process.die_with_parent(self.ppid)
        setting = self.cfg.settings["graceful_timeout"]  # the arbiter kills at its own, in its own copy
        setting.value = for_requests(setting.value)
        super().init_process()

    def init_signals(self) -> None:
        """Take the signals; a stop that came since the fork is in the arbiter's queue, where nobody looks."""
        super().init_signals()
        while not self.mooring_job.signals.empty():
            if self.mooring_job.signals.get() == signal.SIGTERM:
                os.kill(os.getpid(), signal.SIGTERM)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The drain begins. Gunicorn drops an application's `Connection: close`: make it its own."""
        self.mooring_job.serving.drain.begin()
        response_class: Any = Response
        own = response_class.default_headers

        def default_headers(response: Any) -> Any:
            response.force_close()
            return own(response)

        if self.alive:
            response_class.default_headers = default_headers
        super().handle_exit(sig, frame)

    def run(self) -> None:
        """Serve; a lifespan startup that failed is told to the process that started gunicorn."""
        try:
            super().run()
        finally:
            lifespan = self.mooring_job.lifespan
            if lifespan is not None and lifespan.failure is not None:
                self.mooring_job.reports.fail(lifespan.failure)

    def notify(self) -> None:
        """The heartbeat; the first one means that connections are accepted."""
        super().notify()
        if not self.booted or self.mooring_announced:
            return
        self.mooring_announced = True
        process.die_with_parent(self.ppid)  # a change of user has cleared it: prctl(2)
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.listen(self.cfg.backlog)  # asyncio's own 100 would stand for every engine's worker
        self.mooring_job.serving.booted()
        if self.mooring_job.reports.first():
            self.mooring_job.serving.ready()
