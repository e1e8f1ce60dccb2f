"""A WSGI response on its way from the application to the server: its headers, and its body if not a list.

A list is returned as it is, since granian sends lists at once. So is an object made by `wsgi.file_wrapper`,
since gunicorn sends it with sendfile. Any other iterable is wrapped; its `close` is called once, when the
server closes the wrapper.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mooring.application.model import Environ
from mooring.instrument.request_exit import failure_of
from mooring.instrument.wsgi_line import declared_size
from mooring.scoreboard.row import MOVES, STREAMS
from mooring.system.unpatched import native

FinishAnswer = Callable[["Stream"], None]


class Progress:
    """Notes in a row that bodies move; any thread may call it."""

    __slots__ = ("_cells", "_lock")

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells, self._lock = cells, native("_thread", "allocate_lock")()

    def moved(self) -> None:
        """A part of a body has passed."""
        self._cells[MOVES] += 1.0  # a lost update is still a change

    def streams(self, change: int) -> None:
        """A response has begun (1), or ended (-1)."""
        with self._lock:
            self._cells[STREAMS] += change


_CLOSE = ("Connection", "close")


class Stream:
    """An application's iterable on its way to the server: counts bytes, calls `finish(self)` once.

    A chunk that is no bytes fails here, as it would in the server.
    """

    __slots__ = ("begun", "body", "close_body", "environ", "failed", "finish", "progress", "size")

    def __init__(
        self, body: Iterable[bytes], finish: FinishAnswer, environ: Environ, progress: Progress
    ) -> None:
        self.progress, self.begun = progress, False
        self.body = body
        self.environ = environ
        self.close_body = getattr(body, "close", None)
        self.finish: FinishAnswer | None = finish
        self.size = 0
        self.failed = False

    def __iter__(self) -> Iterator[bytes]:
        chunks: Iterator[bytes] | None = None
        while True:
            try:
                chunks = iter(self.body) if chunks is None else chunks
                chunk = next(chunks)
                size = len(chunk) if chunk.__class__ is bytes else memoryview(chunk).nbytes
            except StopIteration:
                return
            except Exception:
                self.failed = self.size == 0
                raise
            except BaseException as error:
                failure = failure_in(self.environ, error)
                if failure is None:
                    raise
                self.failed = self.size == 0
                raise failure from error
            self.progress.moved()
            if not self.begun:
                self.begun = True
                self.progress.streams(1)
            self.size += size
            yield chunk

    def close(self) -> None:
        """The server calls this when it is done with the response, complete or not."""
        finish, self.finish = self.finish, None
        if finish is None:
            return
        if self.begun:
            self.progress.streams(-1)
        try:
            if self.close_body is not None:
                self.close_body()
        except BaseException as error:
            failure = failure_in(self.environ, error)
            if failure is None:
                raise
            raise failure from error
        finally:
            finish(self)


def failure_in(environ: Environ, error: BaseException) -> Exception | None:
    """The error to raise instead of `error`, which is no Exception; None: let it pass."""
    return failure_of(error, environ.get("REQUEST_METHOD"), str(environ.get("RAW_URI")).partition("?")[0])


def with_headers(fields: Any, headers: Any) -> list[tuple[str, str]]:
    """A copy of the response headers, with those of `headers` that the application has not set itself."""
    own = list(fields)
    names = {name.lower() for name, _ in own}
    return [*own, *(header for header in headers if header[0] not in names)]


def last_of_connection(fields: Any) -> list[tuple[str, str]]:
    """A copy of the response headers, with `Connection: close`."""
    return [*(header for header in fields if header[0].lower() != "connection"), _CLOSE]


def is_watched_file(environ: Environ, body: Any, stream: Stream, headers: Any) -> bool:
    """Whether `body` is the server's own file wrapper; if so, it is watched from now on."""
    wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper) and watch(stream, body, headers)


def watch(stream: Stream, body: Any, headers: Any) -> bool:
    """Replace the file's `close` by the stream's, which logs the line. False if that is not possible.

    The size is the declared one, since the server reads the file itself.
    """
    try:
        body.close = stream.close
    except AttributeError:  # a class with slots
        return False
    stream.size = declared_size(headers) or _file_size(body)
    return True


def _file_size(body: Any) -> int:
    try:
        return os.fstat(body.filelike.fileno()).st_size
    except (AttributeError, OSError, ValueError):
        return 0
