"""Signals as a queue: handlers only enqueue, the supervisor's loop reads. Not for what the signals mean."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

SUPERVISED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGUSR1, signal.SIGCHLD),
)
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_DEFAULT_IN_CHILD = (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD)
_FROM_TERMINAL = (signal.SIGTTIN, signal.SIGTTOU)


def _enqueue(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: Python's C handler has already written the number to the wakeup descriptor."""


@contextmanager
def _held_back(numbers: Iterable[int]) -> Iterator[None]:
    """Block `numbers` while their handlers change.

    Python calls a handler some time after the signal came. If the handler was removed meanwhile, Python
    prints a traceback ("ignored due to race condition"). Blocking the signals first runs the handlers that
    are due, and keeps new signals back.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SignalQueue:
    """The signals this process handles, as bytes on a pipe that a selector can watch."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        # The descriptor before the handlers: a signal that comes between the two would be handled, and lost.
        # A full pipe means that the loop is behind by 65,536 signals: it will look at everything anyway.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _enqueue) for number in SUPERVISED}
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISED)  # commands/run/reexec.py has blocked them

    def fileno(self) -> int:
        """The descriptor to watch for reading."""
        return self._read

    def read(self) -> list[int]:
        """The numbers of the signals that came since the last call, in order."""
        try:
            return list(os.read(self._read, 65536))
        except BlockingIOError:
            return []

    def check(self, when: str) -> None:
        """Raise Stopped if a signal to stop has come; `when` says in which step. Others stay in the queue."""
        found = self.read()
        stop = next((number for number in found if number in STOPS), 0)
        if stop:
            raise Stopped(f"stopped by {signal.Signals(stop).name} {when}")
        if found:
            os.write(self._write, bytes(found))

    def close(self) -> None:
        """Put the handlers back as they were."""
        signal.set_wakeup_fd(-1)
        with _held_back(self._before):
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def retire(self) -> None:
        """Ignore all these signals until the process ends, which is soon: its outcome is decided."""
        with _held_back(self._before):
            for number in self._before:
                signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def reset_in_child() -> None:
    """In a forked child, with signals blocked: reset TERM, QUIT and CHLD, pass over the others, unblock all.

    The others are meant for the supervisor: a `pkill -HUP` or `-USR1` must not end workers, and TTIN or TTOU,
    which a terminal sends to background process groups, must not freeze them.
    """
    signal.set_wakeup_fd(-1)
    for number in SUPERVISED:
        if number in _DEFAULT_IN_CHILD:
            signal.signal(number, signal.SIG_DFL)
        else:
            pass_over(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def pass_over(number: int) -> None:
    """Do nothing at this signal from now on; a program that this process executes has the default again.

    SIG_IGN would be inherited by every program that the application starts, execve(2): it could not be ended
    with INT or HUP.
    """
    signal.signal(number, _nothing_from_terminal if number in _FROM_TERMINAL else _nothing)
    signal.siginterrupt(number, False)  # as if it were ignored: no system call ends with EINTR


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def _nothing_from_terminal(number: int, _frame: FrameType | None) -> None:
    """Do nothing; where there is a terminal, ignore the signal from now on.

    With a handler, the terminal would send it again for each try to read, without end; with SIG_IGN the read
    fails (termios(3)).
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return
    signal.signal(number, signal.SIG_IGN)


def reset_for_program() -> None:
    """Before an exec: ignore and block no signal. Python itself ignores PIPE and XFSZ."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A signal asked mooring to stop before it served. The hook or child that it waited for has ended."""
