"""A worker's stop: the order to drain, for an event loop to wait for; what is left of the grace period; what
it has cut.

It runs inside a worker, with any event loop: each engine passes in its own function for the wake-up. Not for
the supervisor: system/signals.py. Not for what the application hears of it: told.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from mooring.engines import Serving
from mooring.engines.common.told import Handler, Told
from mooring.instrument.drain import DrainState
from mooring.logs.escape import escape
from mooring.system import forks, signals
from mooring.system.unpatched import native

# What `reserve` returns: these seconds, but at most this share of the grace period.
_RESERVE, _RESERVE_SHARE = 1.0, 0.2
_log = logging.getLogger("mooring")
_NAMED = 10  # requests that the warning of what was cut names


class StopRequest:
    """The stop of this process, requested once: by the supervisor's order, or by SIGTERM.

    The order comes on a descriptor of its own, to a thread: a library may have replaced the handler of
    SIGTERM. `handle_exit` is that handler as long as nobody has. Libraries look for the object that it is
    bound to, and read `should_exit` there, as with uvicorn. SIGINT is for the supervisor, and ignored here.
    `grace` is in seconds and counts from the request. The handlers stay installed until the process ends, so
    that a second signal cannot kill a worker that is about to end. `leave` closes the listeners; it is called
    first, since an event loop may be blocked.
    """

    def __init__(self, grace: float, leave: Callable[[], object]) -> None:
        self.requested = False
        self.told = Told()
        self.force_exit, self._captured_signals = False, list[int]()  # for uvicorn's own handle_exit
        self._leave = leave
        self._grace = grace
        self._at = 0.0
        self._wake: Callable[[], object] | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._drain = DrainState()
        self._leaving: Callable[[str], None] = _tell_nobody

    def install(self, serving: Serving, handler: Handler | None = None, server: Any = None) -> None:
        """Install the handlers of both signals, and listen to the supervisor; from the main thread only.

        `handler` and `server`: uvicorn's own, instead of `handle_exit` and this object. It calls `request`.
        """
        self._drain, self._leaving = serving.drain, serving.leaving
        signals.pass_over(signal.SIGINT)
        self.told.install(handler or self.handle_exit)
        serving.drain.on_begin(lambda: self.told.tell(server or self))
        if serving.orders >= 0:
            self._listen(serving.orders)

    def _listen(self, orders: int) -> None:
        """Have a thread wait for the supervisor's order; without one, the supervisor will use the signal."""
        try:
            native("_thread", "start_new_thread")(self._hear, (orders,))
        except RuntimeError:  # the system refuses
            ours = socket.socket(fileno=os.dup(orders))
            ours.shutdown(socket.SHUT_RD)
            ours.close()

    def _hear(self, orders: int) -> None:
        try:
            ordered = os.read(orders, 1)
        except OSError:
            return
        if ordered:
            self.request()

    def handle_exit(self, _number: int = 0, _frame: object = None) -> None:
        """The handler of SIGTERM."""
        self.request()

    @property
    def should_exit(self) -> bool:
        """Whether the stop was requested. An application may set it, as with uvicorn: that requests it."""
        return self.requested

    @should_exit.setter
    def should_exit(self, wanted: bool) -> None:
        if wanted and not self.requested:
            self.request("the application has set should_exit")

    def on_request(self, wake: Callable[[], object]) -> None:
        """Call `wake` when the stop is requested, from a signal handler or another thread; now if it was
        requested before.

        `wake` must use a loop's function for that (call_soon_threadsafe, run_sync_soon).
        """
        self._wake = wake
        if self.requested:
            self._call(wake)

    def waker(self) -> socket.socket:
        """A socket that becomes readable at each signal, and at the request. Only the main thread may call
        this and wait on it.

        The kernel delivers a signal to any thread (signal(7)), but Python runs the handler in the main thread
        only: while that waits for a lock, or in asyncio's own loop, nothing would wake it. uvloop and trio
        have wake-ups of their own.
        """
        if self._waker is None:
            self._waker = socket.socketpair()
            self._waker[1].setblocking(False)
            for each in self._waker:
                forks.disown(each.fileno())
            signal.set_wakeup_fd(self._waker[1].fileno(), warn_on_full_buffer=False)
        return self._waker[0]

    def wait(self) -> None:
        """Wait until the stop is requested, in a main thread without an event loop."""
        waker = self.waker()
        while not self.requested:
            try:
                waker.recv(4096)
            except (SystemExit, KeyboardInterrupt) as error:  # of the application's signal handler
                self.ended_by(error)

    def request(self, unasked: str = "") -> None:
        """Start the stop; a second call changes nothing. `unasked`: why, where nobody has ordered it."""
        if self.requested:
            return
        self._at = time.monotonic()
        self._drain.asked, self._drain.unasked = True, unasked
        self.requested = True
        self._leave()
        if self._waker is not None:
            with contextlib.suppress(OSError):  # full: it is readable anyway
                self._waker[1].send(b"\0")
        if self._wake is not None:
            self._call(self._wake)
        if unasked:
            _log.error("%s: the worker finishes its requests and is replaced", unasked)
            self._leaving(unasked)

    def ended_by(self, error: SystemExit | KeyboardInterrupt) -> bool:
        """Start the stop if the application's handler of SIGTERM raised `error`; returns whether it did."""
        found = self.told.raised(error)
        if found:
            self.request()
        return found

    @staticmethod
    def _call(wake: Callable[[], object]) -> None:
        # A loop that has ended meanwhile raises RuntimeError: there is nothing left to wake.
        with contextlib.suppress(RuntimeError):
            wake()

    def remaining(self) -> float:
        """Seconds until the grace period ends; all of it before the stop is requested. Never below 0.1."""
        return max(0.1, self._at + self._grace - time.monotonic()) if self.requested else self._grace

    def remaining_for_requests(self) -> float:
        """Seconds that requests in flight have left; the rest is for the lifespan shutdown. Never below 0."""
        return max(0.0, self.remaining() - reserve(self._grace))


def _tell_nobody(_why: str) -> None:
    """Stand for `Serving.leaving` before the stop is installed."""


def reserve(grace: float) -> float:
    """Seconds of the grace period that requests leave for the lifespan shutdown."""
    return min(_RESERVE, grace * _RESERVE_SHARE)


def warn_of_cut(log: logging.Logger, serving: Serving, count: int | None = None) -> None:
    """Log a warning about the requests in flight, up to 10 of them by method, path and age; none: no warning.

    `count` is their number, if the engine knows it better.
    """
    requests = serving.in_flight()
    count = len(requests) if count is None else count
    if not count:
        return
    names = ", ".join(
        f"{each.method} {escape(each.path)} (after {each.age:.1f} s)" for each in requests[:_NAMED]
    )
    more = f" and {count - _NAMED} more" if names and count > _NAMED else ""
    log.warning(
        "%d request%s outlived the grace period of %g s, and %s cut%s%s%s",
        count,
        "" if count == 1 else "s",
        serving.plan.settings.graceful_timeout,
        "was" if count == 1 else "were",
        ": " if names else "",
        names,
        more,
    )
