"""SIGTERM as something an event loop can wait for, and how much of the grace period is left.

Not for the supervisor (system/signals.py): this runs inside a worker, and knows no loop; the engines hand in
the wake-up.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable

# Of the grace period, what is kept for the lifespan shutdown when requests use up all of theirs.
_RESERVE, _RESERVE_SHARE = 1.0, 0.2


class StopRequest:
    """The one stop of this process: requested by SIGTERM, once; SIGINT is the supervisor's and ignored.

    `grace` is in seconds and counts from the signal. The handlers stay in place for the rest of the process,
    so that no second signal can kill a worker that is about to leave.
    """

    def __init__(self, grace: float) -> None:
        self.requested = False
        self._grace = grace
        self._at = 0.0
        self._wake: Callable[[], object] | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None

    def install(self) -> None:
        """Take both signals; from the main thread only."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self.request())

    def on_request(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from the signal handler, when the stop is requested; at once when it has been already.

        `wake` must be what a loop offers for signal handlers (call_soon_threadsafe, run_sync_soon).
        """
        self._wake = wake
        if self.requested:
            wake()

    def waker(self) -> socket.socket:
        """A socket that is readable after each signal, for the main thread to wait on, from there only.

        The kernel gives a signal to any thread, signal(7), and Python's handler runs in the main one alone:
        while that waits for a lock or on a plain asyncio loop, nothing would tell it. uvloop and trio have
        their own.
        """
        if self._waker is None:
            self._waker = socket.socketpair()
            self._waker[1].setblocking(False)
            signal.set_wakeup_fd(self._waker[1].fileno(), warn_on_full_buffer=False)
        return self._waker[0]

    def wait(self) -> None:
        """Wait for the request, in a main thread without a loop."""
        waker = self.waker()
        while not self.requested:
            waker.recv(4096)

    def request(self) -> None:
        """Start the stop; a second call changes nothing."""
        if self.requested:
            return
        self.requested, self._at = True, time.monotonic()
        if self._wake is not None:
            # A loop that has ended meanwhile raises; there is nobody left to wake.
            with contextlib.suppress(RuntimeError):
                self._wake()

    def remaining(self) -> float:
        """Seconds until the grace period ends; before the request, all of it. Never below 0.1."""
        return max(0.1, self._at + self._grace - time.monotonic()) if self.requested else self._grace

    def remaining_for_requests(self) -> float:
        """Seconds that requests in flight have; the rest is for the lifespan shutdown. Never below 0."""
        return max(0.0, self.remaining() - min(_RESERVE, self._grace * _RESERVE_SHARE))
