"""Real child processes for tests of shared memory: forked, and always killed in the end."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


def fork(work: Callable[[], object]) -> int:
    """A child that does `work` and leaves at once, with 1 where it raised. Returns its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def kill(pid: int) -> None:
    """Kill a child and reap it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[int]:
    """`fork` for as long as the block lasts."""
    pid = fork(work)
    try:
        yield pid
    finally:
        kill(pid)
