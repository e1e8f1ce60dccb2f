"""A pipe by which the kernel kills a process's whole group when the process's parent dies, however it dies.

PR_SET_PDEATHSIG does that for one process, but what this one starts does not have the setting, and it counts
a thread that ends as a parent that dies. So the parent holds a pipe's write end; each child opens the read
end anew, and asks for SIGKILL to its own process group at the end of the pipe: fcntl(2), F_SETOWN, F_SETSIG
and O_ASYNC. The kernel closes a dead process's descriptors before it sends PR_SET_PDEATHSIG's signal, so the
child still holds its end.

All of it is for the case that nobody is left to do it in order: what cannot be set up is left out.
"""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress

_F_SETSIG = 10  # linux/fcntl.h; the module fcntl lacks it


class _Ends:
    """What this process holds: the pipe for its children, and the read end of its parent's. -1: none."""

    maker = 0  # the pid of the process that has made `read` and `write`
    read = write = -1
    held = -1


def prepare() -> None:
    """In a parent, before it forks: make the pipe, once. Its write end must be closed in every child."""
    if _Ends.maker == os.getpid():
        return
    with suppress(OSError):
        read, write = os.pipe()
        with suppress(OSError):
            os.fchmod(read, 0o444)  # a child opens it anew, perhaps after it has changed its user
        _Ends.read, _Ends.write, _Ends.maker = read, write, os.getpid()


def hold() -> None:
    """In a child that leads its process group: have the group killed when the parent dies.

    The parent is the process that has called `prepare`, or else the one whose lifeline this process has
    inherited. Whether the parent is dead already is the caller's to check, afterwards.
    """
    made = _Ends.maker not in {0, os.getpid()}
    inherited = _Ends.read if made else _Ends.held
    if inherited < 0:
        return
    fd = _tie(inherited, os.getpid())
    if fd >= 0:
        release()
        _Ends.held = fd
    if made:
        for end in (_Ends.read, _Ends.write):
            with suppress(OSError):
                os.close(end)
        _Ends.read = _Ends.write = -1
        _Ends.maker = 0


def also(group: int) -> int:
    """Have another process group killed as well when the parent dies. Returns a descriptor, for `drop`."""
    return _tie(_Ends.held, group) if _Ends.held >= 0 else -1


def drop(fd: int) -> None:
    """Undo `also`."""
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)


def _tie(inherited: int, group: int) -> int:
    """A descriptor that has `group` killed at the pipe's end; -1: there can be none."""
    fd = -1
    try:
        fd = os.open(f"/proc/self/fd/{inherited}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(fd, fcntl.F_SETOWN, -group)
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        drop(fd)
        return -1
    return fd


def release() -> None:
    """Let go of the parent's lifeline: this process and its group outlive the parent."""
    if _Ends.held >= 0:
        with suppress(OSError):
            os.close(_Ends.held)
        _Ends.held = -1


def descriptors() -> list[int]:
    """What this process holds of lifelines."""
    return [fd for fd in (_Ends.read, _Ends.write, _Ends.held) if fd >= 0]
