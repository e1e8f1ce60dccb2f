# mypy: disable-error-code=no-untyped-call
"""Meinheld's worker class for gunicorn (meinheld 1.0.2, its last release), where the user's image has it.

Its own heartbeat changes the mode of gunicorn's file, and gunicorn looks at the file's time since release 22:
a hung worker was never killed, nor would a healthy one be told from it. So the heartbeat is gunicorn's own
here, called from meinheld's loop, which wakes once a second. Its own stop cuts what is in flight after a
second.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from typing import Any

from gunicorn import glogging

from mooring.engines.common.gate import Gate, warn_of_cut
from mooring.engines.gunicorn.worker import MooringWorker


class _Errors:
    """What meinheld tells exceptions to."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def error(self, kind: Any, error: Any, traceback: Any) -> None:
        """Log an exception of meinheld's or the application's."""
        self._log.error("meinheld: an exception in a request", exc_info=(kind, error, traceback))


class MeinheldWorker(MooringWorker):
    """Goes before meinheld's class."""

    mooring_gate: Gate | None = None
    mooring_over = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        logger: Any = glogging.Logger
        own = logger.access, logger.error
        super().__init__(*args, **kwargs)
        logger.access, logger.error = own  # it has put its own in, with other parameters
        self._server.set_access_logger(None)  # the instrumentation's
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
        """First thing in the loop: it has put its own signal handlers in place, which cut."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.notify()

    def mooring_beat(self) -> None:
        """Once a second, from the loop."""
        self.notify()
        gate = self.mooring_gate
        if gate is not None and not self.mooring_over and (gate.passed() or gate.passed()):  # it wants two
            self.mooring_over = True
            self._server.stop(0)  # only idle connections are left, for which the loop would wait

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The drain begins: no connection is accepted any more, and requests have the grace period."""
        if self.mooring_gate is None:
            serving = self.mooring_job.serving
            serving.drain.begin()
            self.mooring_gate = Gate(serving, serving.in_flight)
            self._server.stop(max(1, math.ceil(self.cfg.graceful_timeout)))

    def handle_abort(self, sig: int, frame: Any) -> None:
        """It hung, and the arbiter has said so. By an exception the request alone would end."""
        self.cfg.worker_abort(self)
        os._exit(1)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """As a stop."""
        self.handle_exit(sig, frame)
