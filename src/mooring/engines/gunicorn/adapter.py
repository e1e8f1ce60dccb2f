# mypy: disable-error-code=no-untyped-call
"""gunicorn, with an arbiter of its own inside this process: for those who bring gunicorn configuration.

Its workers are children of this process; they load the application. gunicorn's hooks stay the user's: what
mooring needs is in a subclass of the worker class (worker/run.py). Its control socket, its reloader,
its pid file and its own binding are off (config.py).
"""

from __future__ import annotations

import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from mooring.application.failure import BootError, one_line
from mooring.engines import Serving
from mooring.engines.common import tls
from mooring.engines.common.stop import StopRequest
from mooring.engines.gunicorn import heartbeat
from mooring.engines.gunicorn.config import GunicornApplication
from mooring.engines.gunicorn.report import Reports
from mooring.errors import ConfigurationError, MooringError
from mooring.metrics.multiprocess.files import retire_in
from mooring.metrics.multiprocess.folder import hand_over

if TYPE_CHECKING:
    from mooring.plan.plan import Plan


def check(plan: Plan) -> None:
    """Raise ConfigurationError for what gunicorn cannot do."""
    if plan.tls:
        tls.context(plan.settings, ())


def serve(serving: Serving) -> None:
    """Serve until drained. In gunicorn's workers, which are forked in here, it raises SystemExit at their
    end.

    Raises ApplicationError where the application does not boot in gunicorn's worker, ConfigurationError for
    bad gunicorn configuration, or a worker class that cannot serve the application.
    """
    stop = StopRequest(serving.plan.settings.graceful_timeout)
    stop.install()
    heartbeat.install()
    reports = Reports()
    arbiter_pid = os.getpid()
    code: Any = 0
    try:
        _Arbiter(GunicornApplication(serving, reports), serving, stop).run()
    except SystemExit as end:
        if os.getpid() != arbiter_pid:
            raise
        code = end.code
    except MooringError:
        raise
    except BaseException as error:
        if os.getpid() != arbiter_pid:
            traceback.print_exc()
            raise SystemExit(1) from None
        reports.check()
        raise ConfigurationError(f"gunicorn: {one_line(error)}") from None
    reports.check()
    if code not in {0, None}:
        raise BootError(f"gunicorn ended with exit code {code}: its own messages say why")


def _hold_stops_while_forking() -> None:
    """Keep a TERM that reaches a new worker waiting: Python forgets those that come before it has looked.

    PyOS_AfterFork_Child clears what is pending, and runs functions like these after that.
    """
    arbiter, held = os.getpid(), False

    def hold() -> None:
        nonlocal held
        if os.getpid() == arbiter:
            held = signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def release() -> None:
        nonlocal held
        if held:
            held = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=release)


class _Arbiter(Arbiter):
    """Gunicorn's arbiter on inherited listeners."""

    log: Any

    def __init__(self, application: GunicornApplication, serving: Serving, stop: StopRequest) -> None:
        self._serving, self._stop, self._stopping = serving, stop, False
        super().__init__(application)
        application.cfg.job.signals = self.SIG_QUEUE

    def start(self) -> None:
        """Start as under systemd's socket activation, which leaves listeners and unix paths to their owner.

        Not by LISTEN_FDS itself: that wants the sockets on the descriptors from 3 on, where others may be.
        """
        self.systemd = True
        fds = [os.dup(each.fileno()) for each in self._serving.sockets]  # gunicorn closes what it is given
        self.LISTENERS = sock.create_sockets(self.cfg, self.log, fds)
        if self._serving.metrics is not None and self.cfg.uid != os.geteuid():
            hand_over(self._serving.metrics, self.cfg.uid, self.cfg.gid)
        _hold_stops_while_forking()
        super().start()

    def init_signals(self) -> None:
        """Take gunicorn's signals; a stop that came earlier is not lost."""
        super().init_signals()
        if self._stop.requested:
            self.signal(signal.SIGTERM, None)

    def stop(self, graceful: bool = True) -> None:
        """StopRequest the workers."""
        self._stopping = True
        super().stop(graceful)

    def spawn_worker(self) -> int:
        """Fork a worker that has a row of the scoreboard."""
        desk = self._serving.desk
        if desk is not None:
            desk.reserve()
        pid: int = super().spawn_worker()
        if desk is not None:
            desk.settle(pid)
        return pid

    def reap_workers(self) -> None:
        """Reap; a second worker that did not boot must not break off the stop that the first one caused."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._stopping:
                raise
        finally:
            if self._serving.desk is not None:
                for pid in self._serving.desk.leave(self.WORKERS):
                    if self._serving.metrics is not None:
                        retire_in(self._serving.metrics, pid)
                    self._serving.gone(pid)

    def handle_int(self) -> None:
        """Nothing: SIGINT is the supervisor's."""

    def handle_ttin(self) -> None:
        """One worker more, and say so: the supervisor goes on from there."""
        super().handle_ttin()
        self._serving.resized(self.num_workers)

    def handle_ttou(self) -> None:
        """One worker fewer, likewise."""
        super().handle_ttou()
        self._serving.resized(self.num_workers)

    def handle_hup(self) -> None:
        """Nothing: a roll is the supervisor's, and starts a second arbiter."""
        self.log.warning("HUP is ignored here: send it to mooring")

    def handle_usr2(self) -> None:
        """Nothing: a second arbiter is the supervisor's to start."""
        self.log.warning("USR2 is ignored: reload with mooring")
