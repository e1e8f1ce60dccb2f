# mypy: disable-error-code=no-untyped-call
"""Meinheld's worker class for gunicorn (meinheld 1.0.2, its last release), if the user's image has it.

Meinheld's heartbeat changes the mode of gunicorn's file, but since release 22 gunicorn reads the file's
modification time: it cannot tell a hung worker from a healthy one. So here meinheld's loop, which wakes once
a second, calls gunicorn's own heartbeat. Meinheld's own stop cuts the requests in flight after one second.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from typing import Any

from gunicorn import glogging
from gunicorn.workers.sync import SyncWorker

from mooring.engines.common.gate import Gate
from mooring.engines.common.stop import warn_of_cut
from mooring.engines.gunicorn.worker import MooringWorker
from mooring.system import signals


class _Errors:
    """The object to which meinheld reports exceptions."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def error(self, kind: Any, error: Any, traceback: Any) -> None:
        """Log an exception of meinheld or of the application."""
        self._log.error("meinheld: an exception in a request", exc_info=(kind, error, traceback))


class MeinheldWorker(MooringWorker):
    """The mixin before meinheld's worker class."""

    mooring_gate: Gate | None = None
    mooring_over = False

    # what was queued at the stop is served by gunicorn's own code: meinheld takes no accepted connection
    handle = SyncWorker.handle
    handle_request = SyncWorker.handle_request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        logger: Any = glogging.Logger
        own = logger.access, logger.error
        super().__init__(*args, **kwargs)
        logger.access, logger.error = own  # meinheld has replaced them, with other parameters
        self._server.set_access_logger(None)  # the instrumentation writes it
        self._server.set_error_logger(_Errors(self.log.error_log))

    @property
    def _server(self) -> Any:
        return sys.modules["meinheld.server"]

    def run(self) -> None:
        """Serve until drained."""
        server = self._server
        server.set_keepalive(math.ceil(self.cfg.keepalive))
        server.set_picoev_max_fd(self.cfg.worker_connections)
        server.set_listen_socket([each.fileno() for each in self.sockets])
        server.set_watchdog(self.mooring_beat)
        server.schedule_call(0, self.mooring_begin)
        server.run(self.wsgi, 1)
        warn_of_cut(self.log.error_log, self.mooring_job.serving)

    def mooring_begin(self) -> None:
        """Replace meinheld's signal handlers, which cut requests. Runs first in the loop."""
        self.mooring_told.install(self.handle_exit)
        signals.pass_over(signal.SIGINT)
        self.notify()

    def mooring_beat(self) -> None:
        """Send the heartbeat and check the drain. The loop calls it once a second."""
        self.notify()
        self.mooring_serve_queued()
        gate = self.mooring_gate
        if gate is not None and not self.mooring_over and (gate.passed() or gate.passed()):  # needs two
            self.mooring_over = True
            self._server.stop(0)  # the loop would wait for the idle connections that are left

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin the drain: accept no more connections; requests in flight have the grace period."""
        if self.mooring_gate is None:
            serving = self.mooring_job.serving
            serving.doors.close()
            serving.drain.begin()
            self.mooring_gate = Gate(serving, serving.in_flight)
            self._server.stop(max(1, math.ceil(self.cfg.graceful_timeout)))

    def handle_abort(self, sig: int, frame: Any) -> None:
        """The arbiter has found that this worker hangs: exit now. An exception would only end the request."""
        self.cfg.worker_abort(self)
        os._exit(1)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Handle SIGQUIT like SIGTERM."""
        self.handle_exit(sig, frame)
