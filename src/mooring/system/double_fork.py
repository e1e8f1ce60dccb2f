"""Fork, in a template, a process that becomes a child of the supervisor.

This takes two forks: the process in the middle ends at once, and its child becomes a child of the nearest
subreaper above, which is the supervisor (prctl(2)).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from mooring.system import forks, lifeline, process

_SIZE = 8  # bytes of a pid, or of a negative errno, on its pipe


def fork_for(parent: int, told: Callable[[int], None], run: Callable[[], int]) -> None:
    """Fork a process that calls `run` as a child of `parent`, in its own process group.

    The new process dies with `parent`. Before it calls `run`, it waits until this process has called `told`
    with its pid. It exits if `told` raises or if this process dies. Raises OSError if the system refuses to
    fork.
    """
    ends = Ends()
    try:
        with forks.own():
            middle = os.fork()
        if middle == 0:
            _middle(ends, parent, run)
        ends.close("gate", "answer")
        said = os.read(ends.question, _SIZE)
        with suppress(ChildProcessError):  # raised if the application ignores SIGCHLD
            os.waitpid(middle, 0)  # its child has a new parent by now: exit(2) does that first
        pid = int.from_bytes(said, "little", signed=True)
        if pid <= 0:
            number = -pid or errno.ECHILD
            raise OSError(number, os.strerror(number))
        told(pid)
        with suppress(BrokenPipeError):  # the new process was killed
            os.write(ends.key, b".")
    finally:
        ends.close(*Ends.NAMES)


class Ends:
    """Both ends of two pipes.

    The new process waits at `gate` for a byte from `key`. The process in the middle writes the pid to
    `answer`; it is read from `question`.
    """

    NAMES = ("gate", "key", "question", "answer")

    def __init__(self) -> None:
        self.gate, self.key = os.pipe()
        try:
            self.question, self.answer = os.pipe()
        except OSError:
            os.close(self.gate)
            os.close(self.key)
            raise

    def close(self, *names: str) -> None:
        """Close the named ends, if they are not closed yet."""
        for name in names:
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)


def _middle(ends: Ends, parent: int, run: Callable[[], int]) -> NoReturn:
    try:
        try:
            with forks.own():
                pid = os.fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid == 0:
            process.run_to_the_end(lambda: _begin(ends, parent, run))
        os.write(ends.answer, pid.to_bytes(_SIZE, "little", signed=True))
    finally:
        os._exit(0)


def _begin(ends: Ends, parent: int, run: Callable[[], int]) -> int:
    os.setpgid(0, 0)
    ends.close("key", "question", "answer")
    if not os.read(ends.gate, 1):
        os._exit(1)  # `key` was closed without a byte: the supervisor was not told of this process
    ends.close("gate")
    lifeline.hold()
    process.die_with_parent(parent)
    return run()
