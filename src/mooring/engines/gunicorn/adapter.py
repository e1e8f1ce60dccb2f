# mypy: disable-error-code=no-untyped-call
"""gunicorn, with its own arbiter inside this process: for users who have a gunicorn configuration.

Its workers are children of this process; they load the application. gunicorn's hooks are left to the user:
what mooring needs is in a subclass of the worker class (worker.py). gunicorn's control socket, reloader, pid
file and binding are off (config.py).
"""

from __future__ import annotations

import os
import signal
import time
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
from mooring.engines.gunicorn.worker import ORDER
from mooring.errors import ConfigurationError, MooringError
from mooring.instrument.drain import DrainState
from mooring.metrics.multiprocess.files import retire_in
from mooring.metrics.multiprocess.folder import hand_over
from mooring.system import forks, lifeline, process
from mooring.system.groups import Groups

if TYPE_CHECKING:
    from mooring.plan.plan import Plan


_NAP = 0.02  # seconds between two looks at what workers have left


def check(plan: Plan) -> None:
    """Raise ConfigurationError for what gunicorn cannot do."""
    if plan.tls:
        tls.context(plan.settings, ())


def serve(serving: Serving) -> None:
    """Serve until drained. Gunicorn forks its workers in this call; in them it raises SystemExit at the end.

    Raises ApplicationError if the application does not boot in gunicorn's worker, ConfigurationError for bad
    gunicorn configuration or a worker class that cannot serve the application.
    """
    stop = StopRequest(serving.plan.settings.graceful_timeout, lambda: None)
    # The supervisor sends the arbiter SIGTERM; the drain is that of its workers.
    stop.install(serving._replace(orders=-1, drain=DrainState()))
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
    """Block the order to drain and TERM around each fork: Python loses a signal that comes right after the
    fork, before it looks.

    PyOS_AfterFork_Child clears pending signals first, then runs the functions registered here.
    """
    arbiter, held, stops = os.getpid(), False, {signal.SIGTERM, ORDER}

    def hold() -> None:
        nonlocal held
        if os.getpid() == arbiter:
            held = ORDER not in signal.pthread_sigmask(signal.SIG_BLOCK, stops)

    def release() -> None:
        nonlocal held
        if held:
            held = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=release)


class _Arbiter(Arbiter):
    """Gunicorn's arbiter on inherited listeners."""

    log: Any

    def __init__(self, application: GunicornApplication, serving: Serving, stop: StopRequest) -> None:
        self._serving, self._stop, self._stopping = serving, stop, False
        self._leaders, self._groups = set[int](), Groups()  # workers, and what they have left in their groups
        super().__init__(application)
        application.cfg.job.signals, application.cfg.job.told = self.SIG_QUEUE, stop.told

    def start(self) -> None:
        """Start as with systemd's socket activation: then gunicorn leaves listeners and unix paths alone.

        Not with LISTEN_FDS: that needs the sockets at descriptors 3 and up, where other files may be open.
        """
        self.systemd = True
        fds = [os.dup(each.fileno()) for each in self._serving.sockets]  # gunicorn closes what it is given
        self.LISTENERS = sock.create_sockets(self.cfg, self.log, fds)
        if self._serving.metrics is not None and self.cfg.uid != os.geteuid():
            hand_over(self._serving.metrics, self.cfg.uid, self.cfg.gid)
        _hold_stops_while_forking()
        super().start()

    def init_signals(self) -> None:
        """Install gunicorn's handlers; a stop that was requested earlier is not lost."""
        self._stop.told.notice()  # with preload_app the arbiter has imported the application
        super().init_signals()
        self._stop.told.own(signal.getsignal(signal.SIGTERM))
        signal.signal(ORDER, self.signal)  # for a worker that has not installed its own handler yet
        if self._stop.requested:
            self.signal(signal.SIGTERM, None)

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers; before them, close the listeners here."""
        self._stopping = True
        self._serving.doors.close()
        super().stop(graceful)
        while self._groups:
            self._groups.look(hurried=not graceful)
            time.sleep(_NAP)

    def spawn_worker(self) -> int:
        """Fork a worker that has a row of the scoreboard."""
        rows = self._serving.arbiter_rows
        if rows is not None:
            rows.reserve()
        lifeline.prepare()
        for fd in lifeline.descriptors():
            forks.disown(fd)
        with forks.own():
            pid: int = super().spawn_worker()
        self._leaders.add(pid)
        if rows is not None:
            rows.settle(pid)
        return pid

    def kill_worker(self, pid: int, sig: int) -> None:
        """Signal a worker. Its order to drain is not SIGTERM, whose handler may be the application's."""
        super().kill_worker(pid, ORDER if sig == signal.SIGTERM else sig)

    def spawn_dirty_arbiter(self) -> int | None:
        """Fork the process that runs what takes long, where the configuration names it."""
        with forks.own():
            pid: int | None = super().spawn_dirty_arbiter()
        return pid

    def murder_workers(self) -> None:
        """Kill workers that hang, and what others have left. Called at each turn of the loop."""
        super().murder_workers()
        self._groups.look()

    def reap_workers(self) -> None:
        """Reap workers; a second one that did not boot must not interrupt the stop caused by the first."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._stopping:
                raise
        finally:
            for pid in self._leaders - set(self.WORKERS):
                self._leaders.discard(pid)
                process.term_group(pid)
                self._groups.add(pid)
            if self._serving.arbiter_rows is not None:
                for pid in self._serving.arbiter_rows.leave(self.WORKERS):
                    if self._serving.metrics is not None:
                        retire_in(self._serving.metrics, pid)
                    self._serving.gone(pid)

    def handle_int(self) -> None:
        """Do nothing: SIGINT is for the supervisor."""

    def handle_ttin(self) -> None:
        """Add a worker, and tell the supervisor, which uses that number from now on."""
        super().handle_ttin()
        self._serving.resized(self.num_workers)

    def handle_ttou(self) -> None:
        """Remove a worker, and tell the supervisor."""
        super().handle_ttou()
        self._serving.resized(self.num_workers)

    def handle_hup(self) -> None:
        """Do nothing but warn: the supervisor does a roll, by starting a second arbiter."""
        self.log.warning("HUP is ignored here: send it to mooring")

    def handle_usr2(self) -> None:
        """Do nothing but warn: only the supervisor starts a second arbiter."""
        self.log.warning("USR2 is ignored: reload with mooring")
