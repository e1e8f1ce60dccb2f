"""Write lines to a log's descriptor whole, and without waiting for its reader.

Not for what the lines say (log.py), nor for the access log, which has a process to wait in
(logs/access/writer.py).
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Iterator

PIPE_BUF = 4096  # up to this, a write to a pipe is whole or refused, pipe(7)
FILE_PIECE = 65536  # a file has no such limit: an append is whole
_REST = 100  # milliseconds that a record's later pieces wait for room
_CUT = b"...\n"


class Rest:
    """What is left of a line that a full disk has cut off, kept to be written first when there is room.

    So the line is whole in the end. Where somebody else has written to the file meanwhile, or it is another
    one now, the line is lost.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""
        self._end: tuple[int, ...] | None = None

    def keep(self, data: bytes) -> None:
        """Keep this, the file being as it is now; an empty one is none."""
        self._data, self._end = data, self._look() if data else None

    def due(self) -> bytes:
        """What is to be written first; empty where there is nothing, or it would begin no line's rest."""
        if not self._data or self._end is None:
            return b""
        owner, *place = self._look() or (0,)
        if place != list(self._end[1:]):
            return b""
        return self._data if owner == self._end[0] else b"\n"  # of a fork's parent: that is ended here

    @property
    def lines(self) -> int:
        """How many ends of lines are in it."""
        return self._data.count(b"\n")

    def _look(self) -> tuple[int, ...] | None:
        """Whose it is (a fork has a copy), and where the file ends."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return None
        return os.getpid(), found.st_dev, found.st_ino, found.st_size


class Sink:
    """A descriptor for log records. `fd` is what a forked worker has to keep, `limit` a line's most bytes.

    O_NONBLOCK belongs to the open file description, open(2), which the application shares where it is stdout
    or stderr: so a pipe or a terminal is opened again, by /proc, for us alone. A socket can be told at each
    send. Where neither can be done, the poll before each write is all there is.
    """

    def __init__(self, fd: int) -> None:
        self.fd = _private(fd)
        mode = _mode(self.fd)
        self.limit = FILE_PIECE if stat.S_ISREG(mode) else PIPE_BUF
        self._is_socket = stat.S_ISSOCK(mode)
        self._rest = Rest(self.fd)

    def write(self, data: bytes, wait: int = 0) -> bool:
        """Write whole lines; False where there was no room (for `wait` milliseconds), or no reader."""
        for number, piece in enumerate(pieces(self._rest.due() + data, self.limit)):
            if not self._put(piece, _REST if number else wait):
                return number > 0
        return True

    def _put(self, piece: bytes, wait: int) -> bool:
        poller = select.poll()
        try:
            poller.register(self.fd, select.POLLOUT)
            if not poller.poll(wait):
                return False
            sent = _send(self.fd, piece) if self._is_socket else os.write(self.fd, piece)
        except OSError:
            return False  # no room, the reader is gone, or the disk is full: serving goes on
        self._rest.keep(piece[sent:])
        return True


def pieces(data: bytes, limit: int = PIPE_BUF) -> Iterator[bytes]:
    """Whole lines, together at most `limit` bytes; a longer line is cut, and ends in `...`."""
    gathered = b""
    for line in data.splitlines(keepends=True):
        if len(line) > limit:
            line = line[: limit - len(_CUT)] + _CUT  # noqa: PLW2901
        if len(gathered) + len(line) > limit:
            yield gathered
            gathered = b""
        gathered += line
    if gathered:
        yield gathered


def _private(fd: int) -> int:
    """An open file description of our own of a pipe or a terminal; else the descriptor itself."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            # Python's open makes it close-on-exec: the application's children never see it.
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        pass  # the pipe's reader is gone, or its owner is somebody else
    return fd


def _mode(fd: int) -> int:
    try:
        return os.fstat(fd).st_mode
    except OSError:
        return 0


def _send(fd: int, piece: bytes) -> int:
    sock = socket.socket(fileno=fd)
    try:
        return sock.send(piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    finally:
        sock.detach()  # it must not close what is not its own
