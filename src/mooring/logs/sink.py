"""Writes whole lines to a log's descriptor, without waiting for its reader.

Not for the text of the lines (log.py), nor for the access log, whose process may wait
(logs/access/writer.py).
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Iterator

PIPE_BUF = 4096  # bytes; up to this, a write to a pipe is done whole or refused: pipe(7)
FILE_PIECE = 65536  # bytes; a file has no such limit: an append is whole
_REST = 100  # milliseconds that a record's later pieces wait for room
_CUT = b"...\n"


class Rest:
    """The rest of a line that a full disk has cut off, kept to be written first when there is room.

    So the line is whole in the end. If another process has written to the file meanwhile, or it is another
    file now, the line is lost.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""
        self._end: tuple[int, ...] | None = None

    def keep(self, data: bytes) -> None:
        """Keep `data` as the rest, for the file as it is now; empty: there is no rest."""
        self._data, self._end = data, self._look() if data else None

    def due(self) -> bytes:
        """The bytes to write first; empty if there are none, or if the file's end has changed."""
        if not self._data or self._end is None:
            return b""
        owner, *place = self._look() or (0,)
        if place != list(self._end[1:]):
            return b""
        return self._data if owner == self._end[0] else b"\n"  # kept by the parent: only end its line

    @property
    def lines(self) -> int:
        """The number of line ends in the rest."""
        return self._data.count(b"\n")

    def _look(self) -> tuple[int, ...] | None:
        """The process, since a fork has a copy of the rest; and the file, with its size."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return None
        return os.getpid(), found.st_dev, found.st_ino, found.st_size


class Sink:
    """A descriptor for log records. A forked worker has to keep `fd`; a line has at most `limit` bytes.

    O_NONBLOCK belongs to the open file description (open(2)), which the application shares if it is stdout or
    stderr. So a pipe or a terminal is opened again, through /proc, for mooring alone. For a socket each send
    takes a flag. If neither is possible, there is only the poll before each write.
    """

    def __init__(self, fd: int) -> None:
        self.fd = _private(fd)
        mode = _mode(self.fd)
        self.limit = FILE_PIECE if stat.S_ISREG(mode) else PIPE_BUF
        self._is_socket = stat.S_ISSOCK(mode)
        self._rest = Rest(self.fd)

    def write(self, data: bytes, wait: int = 0) -> bool:
        """Write whole lines; False if there was no room (within `wait` milliseconds), or no reader."""
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
    """For a pipe or a terminal a new descriptor, with its own open file description; else `fd` itself."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            # os.open makes it close-on-exec: the application's children never inherit it.
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        pass  # the pipe's reader is gone, or another user owns the pipe
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
        sock.detach()  # else the socket object would close `fd`
