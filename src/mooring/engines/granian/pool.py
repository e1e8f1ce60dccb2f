"""granian's worker objects on inherited sockets: started and stopped together.

granian has no public option for inherited sockets. Its worker entry points take `(spec, SocketHolder)`, one
socket each, so there is one worker object for each listener, all in this process. The facts come from granian
2.8's src/serve.rs, src/net.rs and src/workers.rs; tests/unit/engines/test_contracts_wsgi.py checks them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from granian import _granian
from granian._granian import SocketHolder, WorkerSignal

from mooring.engines import Serving
from mooring.engines.granian.options import options
from mooring.errors import ConfigurationError

_EMPTYING = 0.25  # seconds: they need some microseconds, or no more connections may be open

_ASK = 20  # seconds of silence until a client is asked, and again
LOG = logging.getLogger("_granian")  # granian's own name


class Pool:
    """granian's workers, one for each socket; started and stopped together."""

    def __init__(self, serving: Serving, threads: int, *, websockets: bool) -> None:
        self._serving = serving
        self._websockets = websockets
        self._threads = threads
        self._workers: list[Any] = []
        self._signals: list[Any] = []

    def start(self, schedulers: Sequence[Any], loop: Any, stopped: Callable[[], None]) -> None:
        """Accept on every socket; `stopped` is called, in any thread, for each worker that has stopped."""
        kind: Any = _granian.ASGIWorker  # for WSGI too: request.py
        plan = self._serving.plan
        settings = options(plan.settings, plan.max_connections, websockets=self._websockets)
        for number, (sock, scheduler) in enumerate(zip(self._serving.sockets, schedulers, strict=True), 1):
            uds = sock.family == socket.AF_UNIX
            if not uds:
                _ask_silent_clients(sock)
            fd = os.dup(sock.fileno())  # granian closes what it is given
            holder: Any = SocketHolder
            holder = holder(fd, uds, self._serving.plan.settings.backlog)
            ended = WorkerSignal()
            ended.add_cb(stopped)
            try:
                worker = kind(number, (None, holder), None, 1, 512, self._threads, 30, *settings)
                (worker.serve_mtr_uds if uds else worker.serve_mtr)(scheduler, loop, ended)
            except BaseException as error:
                raise _explained(error) from None
            self._workers.append(worker)
            self._signals.append(ended)

    def leave(self) -> None:
        """Stop accepting; open connections go on. granian's own threads accept, whatever Python does."""
        self._serving.doors.close_once_empty(_EMPTYING)

    def stop(self) -> None:
        """Close idle connections now, the others after their response."""
        while self._signals:
            self._signals.pop().set()  # once each: a second set() would block


def _explained(error: BaseException) -> BaseException:
    """The error to raise: ConfigurationError for a panic of granian (from pyo3), caused by bad TLS files."""
    if type(error).__name__ == "PanicException":
        return ConfigurationError(f"granian cannot use the TLS certificate, key or client CA: {error}")
    return error


def _ask_silent_clients(listener: socket.socket) -> None:
    """Have the kernel ask silent clients whether they are still there: granian sends WebSockets no pings.

    Connections have this of their listener: tcp(7).
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        listener.setsockopt(socket.IPPROTO_TCP, option, _ASK)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
