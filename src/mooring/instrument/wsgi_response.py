"""An application's answer on WSGI on its way to the server: its headers, and its body where that is no list.

A list is returned as it is, since granian sends lists at once, and so is what `wsgi.file_wrapper` made, since
gunicorn sends that with sendfile. Any other iterable is wrapped; its `close` is called once, when the server
closes ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mooring.application.model import Environ
from mooring.instrument.wsgi_line import declared_size

FinishAnswer = Callable[["Stream"], None]
_CLOSE = ("Connection", "close")


class Stream:
    """An application's iterable on its way to the server: counts bytes, calls `finish(self)` once.

    A chunk that is no bytes fails here, as it would in the server.
    """

    __slots__ = ("body", "close_body", "failed", "finish", "size")

    def __init__(self, body: Iterable[bytes], finish: FinishAnswer) -> None:
        self.body = body
        self.close_body = getattr(body, "close", None)
        self.finish: FinishAnswer | None = finish
        self.size = 0
        self.failed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self.body:
                self.size += len(chunk) if chunk.__class__ is bytes else memoryview(chunk).nbytes
                yield chunk
        except Exception:
            self.failed = self.size == 0
            raise

    def close(self) -> None:
        """What the server calls when it is done with the response, complete or not."""
        finish, self.finish = self.finish, None
        if finish is None:
            return
        try:
            if self.close_body is not None:
                self.close_body()
        finally:
            finish(self)


def with_headers(fields: Any, headers: Any) -> list[tuple[str, str]]:
    """Response headers, copied, with those of `headers` that the application has not set itself."""
    own = list(fields)
    names = {name.lower() for name, _ in own}
    return [*own, *(header for header in headers if header[0] not in names)]


def last_of_connection(fields: Any) -> list[tuple[str, str]]:
    """Response headers, copied, with `Connection: close`."""
    return [*(header for header in fields if header[0].lower() != "connection"), _CLOSE]


def is_watched_file(environ: Environ, body: Any, stream: Stream, headers: Any) -> bool:
    """Whether `body` is the server's own file wrapper, watched from now on."""
    wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper) and watch(stream, body, headers)


def watch(stream: Stream, body: Any, headers: Any) -> bool:
    """Have the file's `close` be the stream's, which makes the line. False: it cannot be.

    Its size is the declared one, since the server reads it past us.
    """
    try:
        body.close = stream.close
    except AttributeError:  # a wrapper with slots
        return False
    stream.size = declared_size(headers) or _file_size(body)
    return True


def _file_size(body: Any) -> int:
    try:
        return os.fstat(body.filelike.fileno()).st_size
    except (AttributeError, OSError, ValueError):
        return 0
