"""The listeners as one process has them, and how it gives them up in a drain.

The kernel refuses a newcomer once no process has the listener open. So each process that has it, the
supervisor too, really closes its descriptors when its part is over, with the copies that an engine has made.
Never by shutdown(2): that would end the listener of whoever else holds it (systemd, the giver of an fd://,
another generation). A worker of an instance that stops first accepts what is queued: nobody else would.
"""

from __future__ import annotations

import _socket  # gevent replaces the class in the module socket
import errno
import mmap
import os
import select
import stat
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from socket import AF_INET, AF_UNIX, SOCK_STREAM, socket
from typing import Any, NamedTuple

from mooring.system.process import descriptors

_MOST = 65_536  # connections taken out of one queue: more than any backlog, and no endless loop
_LOOK = 0.001  # seconds between two looks whether a queue is empty
_EPOLL_CTL_DEL = 2  # linux/eventpoll.h


class Queued(NamedTuple):
    """A connection that was queued when the doors closed, with its listener's number."""

    listener: int
    fd: int
    address: Any


class Doors:
    """The listeners as one process has them. Made before any fork: all processes share whether it is over.

    `lent`: the listeners that somebody else gave us, and may still hold. Their queues are the owner's.
    """

    def __init__(self, sockets: Sequence[socket], lent: Collection[socket] = ()) -> None:
        self.sockets = tuple(sockets)
        self.names = tuple(each.getsockname() for each in self.sockets)
        self.accepting = False  # whether this process serves: only then it can serve what is queued
        self._lent = {number for number, each in enumerate(self.sockets) if each in lent}
        self._inodes = [os.fstat(each.fileno()).st_ino for each in self.sockets]
        self._over = mmap.mmap(-1, mmap.PAGESIZE)
        self._families = [each.family for each in self.sockets]
        self._blank: socket | None = None
        self._blank_tcp: socket | None = None
        self._queued: list[Queued] = []
        self._open = [True]  # emptied once: by a signal's handler, or by another thread

    def serve(self) -> None:
        """Note that this process accepts from now on, and prepare its leaving: descriptors may run out."""
        self.accepting = True
        self._blank = self._blank or _listener_of_nobody()

    def leave(self) -> None:
        """In the supervisor: the instance takes nothing new. Close its own; the workers follow."""
        self._over[0] = 1
        for each in self.sockets:
            each.close()

    @property
    def over(self) -> bool:
        """Whether the instance takes nothing new; else others accept where this process leaves."""
        return self._over[0] != 0

    def close(self) -> None:
        """Give up this process's descriptors, in any thread; a second call does nothing.

        At the instance's end the queues are emptied first: `queued` returns what was in them.
        """
        for number, last in self._withdraw():
            if self._takes(number):
                self._take(number, last)
            self._replace(number, last)

    def close_once_empty(self, seconds: float) -> None:
        """As `close`, for an engine whose own threads accept: they have `seconds` to empty the queues."""
        if self.over and self.accepting and self._open:
            deadline = time.monotonic() + seconds
            own = [each for number, each in enumerate(self.sockets) if self._takes(number)]
            while own and time.monotonic() < deadline:
                with suppress(OSError, ValueError):
                    if not any(_is_readable(each.fileno()) for each in own):
                        break
                time.sleep(_LOOK)
        # Such a thread may just be starting: it would panic at the address of another family (granian does).
        with suppress(OSError):  # no descriptor is left: then all threads have long started
            if any(family != AF_UNIX for family in self._families):
                self._blank_tcp = socket(AF_INET, SOCK_STREAM)
                self._blank_tcp.setblocking(False)
        for number, last in self._withdraw():
            self._replace(number, last)

    def queued(self) -> list[Queued]:
        """The connections that `close` has taken, each once. The caller owns their descriptors."""
        found, self._queued = self._queued, []
        return found

    def _takes(self, number: int) -> bool:
        return self.over and self.accepting and number not in self._lent

    def _withdraw(self) -> list[tuple[int, int]]:
        """Have no event loop wait at the listeners; close all of their descriptors but one each, the last.

        Returns each listener's number with that descriptor. An epoll watches an open file, not a descriptor:
        it would go on reporting what arrives for others.
        """
        try:
            self._open.pop()
        except IndexError:
            return []
        import ctypes  # here, since the supervisor does without it; a worker has imported it long ago

        epoll_ctl = ctypes.CDLL(None).epoll_ctl
        found: dict[int, list[int]] = {}
        polls = []
        for fd in descriptors():
            with suppress(OSError):  # closed meanwhile
                status = os.fstat(fd)
                if not stat.S_ISSOCK(status.st_mode):
                    polls.append(fd)
                elif status.st_ino in self._inodes:
                    found.setdefault(status.st_ino, []).append(fd)
        for inode, fds in found.items():
            for fd in fds:
                for poll in polls:
                    epoll_ctl(poll, _EPOLL_CTL_DEL, fd, None)  # fails for what is no epoll
            for fd in fds[1:]:
                self._replace(self._inodes.index(inode), fd)
        return [(number, found[inode][0]) for number, inode in enumerate(self._inodes) if inode in found]

    def _replace(self, number: int, fd: int) -> None:
        with suppress(OSError):
            self._blank = self._blank or _listener_of_nobody()
            unix = self._families[number] == AF_UNIX
            blank = self._blank if unix or self._blank_tcp is None else self._blank_tcp
            os.dup2(blank.fileno(), fd, inheritable=False)

    def _take(self, number: int, fd: int) -> None:
        listener: Any = _socket.socket(fileno=fd)
        try:
            listener.settimeout(0)
            for _ in range(_MOST):
                try:
                    self._queued.append(Queued(number, *listener._accept()))
                except OSError as error:
                    if error.errno != errno.ECONNABORTED:  # EAGAIN: it is empty; or no descriptor is left
                        break
        finally:
            listener.detach()


def _listener_of_nobody() -> socket:
    """What replaces a listener's descriptors: engines may look at their numbers once more.

    They find a listener at which nobody arrives; a number that is free would soon be a client's connection.
    """
    blank = socket(AF_UNIX, SOCK_STREAM)
    blank.bind("")  # a name that the kernel chooses: unix(7), autobind
    blank.listen(0)
    blank.setblocking(False)
    return blank


def _is_readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))
