"""A worker's stop: SIGTERM for an event loop to wait for, what is left of the grace period, what it has cut.

It runs inside a worker, with any event loop: each engine passes in its own function for the wake-up. Not for
the supervisor: system/signals.py.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable

from mooring.engines import Serving
from mooring.logs.escape import escape
from mooring.system import forks, signals

# What `reserve` returns: these seconds, but at most this share of the grace period.
_RESERVE, _RESERVE_SHARE = 1.0, 0.2
_NAMED = 10  # requests that the warning of what was cut names


class StopRequest:
    """The stop of this process, requested once, by SIGTERM. SIGINT is the supervisor's: passed over here.

    `grace` is in seconds and counts from the signal. The handlers stay installed until the process ends, so
    that a second signal cannot kill a worker that is about to end. `leave` closes the listeners; it
    is called first, since an event loop may be blocked.
    """

    def __init__(self, grace: float, leave: Callable[[], object]) -> None:
        self.requested = False
        self._leave = leave
        self._grace = grace
        self._at = 0.0
        self._wake: Callable[[], object] | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None

    def install(self) -> None:
        """Install the handlers of both signals; from the main thread only."""
        signals.pass_over(signal.SIGINT)
        signal.signal(signal.SIGTERM, lambda *_: self.request())

    def on_request(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from the signal handler, when the stop is requested; now if it was requested before.

        `wake` must use a loop's function for signal handlers (call_soon_threadsafe, run_sync_soon).
        """
        self._wake = wake
        if self.requested:
            wake()

    def waker(self) -> socket.socket:
        """A socket that becomes readable at each signal. Only the main thread may call this and wait on it.

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
            waker.recv(4096)

    def request(self) -> None:
        """Start the stop; a second call changes nothing."""
        if self.requested:
            return
        self.requested, self._at = True, time.monotonic()
        self._leave()
        if self._wake is not None:
            # A loop that has ended meanwhile raises RuntimeError: there is nothing left to wake.
            with contextlib.suppress(RuntimeError):
                self._wake()

    def remaining(self) -> float:
        """Seconds until the grace period ends; all of it before the stop is requested. Never below 0.1."""
        return max(0.1, self._at + self._grace - time.monotonic()) if self.requested else self._grace

    def remaining_for_requests(self) -> float:
        """Seconds that requests in flight have left; the rest is for the lifespan shutdown. Never below 0."""
        return max(0.0, self.remaining() - reserve(self._grace))


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
