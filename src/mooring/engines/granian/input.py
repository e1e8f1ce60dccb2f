"""`wsgi.input` on granian, as PEP 3333 wants it: lines and whole bodies, from request.Body's two methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_PIECE = 1 << 20


class BodyError(ConnectionResetError):
    """A body ends too early: its client has left, sent what is no chunk, or was refused."""


class Input:
    """A request body as a file. `_rest` is the part of a line that a limited readline() left.

    `ended`: the body is read to its end, so that the connection can carry another request.
    """

    __slots__ = ("_body", "_left", "_rest", "ended")

    def __init__(self, body: Any, length: int | None) -> None:
        """`length` is the body's in bytes; None: chunked, so the length is known only at the end."""
        self._body = body
        self._rest = b""
        self._left = length
        self.ended = length == 0

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, or all without a size; fewer than `size` only at the end."""
        if size is None or size < 0:
            parts = [self._rest]
            self._rest = b""
            while piece := self._take(_PIECE):
                parts.append(piece)
            return b"".join(parts)
        data, self._rest = self._rest[:size], self._rest[size:]
        if len(data) < size:
            data += self._take(size - len(data))
        return data

    def _take(self, size: int) -> bytes:
        piece = bytes(self._body.read(size))
        if len(piece) < size and self._left is None and getattr(self._body, "broken", False):
            raise BodyError("the client has left before the end of the request's body")
        self._note(len(piece), len(piece) < size)
        return piece

    def _note(self, size: int, ended: bool) -> None:
        if self._left is not None:
            self._left -= size
        if self._left == 0 and not self.ended:
            self._body.end()
        self.ended = self.ended or ended or self._left == 0

    def readline(self, size: int | None = -1) -> bytes:
        """One line with its newline, at most `size` bytes of it."""
        line = self._rest
        if b"\n" not in line:
            more = self._body.readline()  # without the newline, which is read next
            self._note(len(more), False)
            line += more + self._take(1)
        end = line.find(b"\n") + 1 or len(line)
        if size is not None and 0 <= size < end:
            end = size
        line, self._rest = line[:end], line[end:]
        return line

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """All lines, or as many as needed to reach `hint` bytes."""
        lines: list[bytes] = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line
