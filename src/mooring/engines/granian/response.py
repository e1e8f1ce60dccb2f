"""A WSGI application's response on granian, as PEP 3333 requires it.

Granian's own `start_response` returns no `write`, and a call of it in a generator comes too late: the status
would be 200, without headers. Over HTTP/2 granian would send the application's body in response to a HEAD.
And it closes a connection whose request body was not read, sometimes without `Connection: close`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from mooring.engines.granian.input import Input
from mooring.instrument.wsgi_line import declared_size
from mooring.instrument.wsgi_response import last_of_connection

LOG = logging.getLogger("_granian")


class _End(bytes):
    """The type of _END, an empty chunk that means: the iterable has no more chunks."""


_END = _End()


class Response:
    """One call of the application: its `start_response`, and what the application passed to it.

    `body` is the request's body if the connection ends when it is not read; else None, as with HTTP/2.
    """

    __slots__ = ("body", "headers", "sent", "status", "written")

    def __init__(self) -> None:
        self.body: Input | None = None
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []
        self.sent = False

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's start_response."""
        if exc_info is not None:
            try:
                if self.sent:
                    again(exc_info)
                self.written.clear()  # it was for the head that this one replaces
            finally:
                exc_info = None  # breaks the cycle with this frame
        elif self.status:
            raise AssertionError("start_response was called twice, without exc_info")
        self.status = number(status)
        self.headers = headers
        return self.written.append


def again(exc_info: Any) -> None:
    """Raise the exception that start_response was given."""
    try:
        raise exc_info[1].with_traceback(exc_info[2])
    finally:
        exc_info = None  # breaks the cycle with this frame


def number(status: str) -> int:
    """The number of a status such as `200 OK`."""
    return int(status.split(" ", 1)[0])


def head_of(response: Response) -> tuple[int, list[tuple[str, str]]]:
    """The status and the headers, to be sent now."""
    if response.body is None or response.body.ended:
        return response.status, response.headers
    return response.status, last_of_connection(response.headers)


def joined(response: Response, result: list[bytes]) -> bytes:
    """The complete body; data passed to write() comes first. A subclass of list may have a close()."""
    if result.__class__ is list:
        return b"".join(response.written + result)
    try:
        return b"".join([*response.written, *result])
    finally:
        _close(result)


def cut(response: Response, body: bytes) -> bytes:
    """The body, cut to its declared length: PEP 3333, Handling the Content-Length Header."""
    length = declared_size(response.headers)
    return body if length is None else body[:length]


def stream(proto: Any, response: Response, result: Iterable[bytes], head: bool = False) -> None:
    """Respond with an iterable; chunks are taken until start_response has been called.

    `head`: send only status and headers.
    """
    try:
        chunks = iter(result)
        first: list[bytes] = []
        while not response.status:
            first.append(next(chunks, b""))
            if not response.status and not first[-1]:
                raise AssertionError("the application did not call start_response")
    except BaseException:
        _close(result)
        raise
    if head:
        _close(result)
        proto.response_bytes(*head_of(response), b"")
    else:
        begun(proto, response, result, chunks, first)


def begun(
    proto: Any, response: Response, result: Iterable[bytes], chunks: Iterator[bytes], first: list[bytes]
) -> None:
    """Respond with an iterable whose first chunks have been taken.

    The headers are sent with the first byte of the body (PEP 3333), so a failure before it is a 500. A body
    that is complete by then is sent at once, which costs granian less than a stream.
    """
    try:
        data = b"".join(map(_bytes, (*response.written, *first)))
        while not data:
            data = _bytes(next(chunks, _END))
            if data is _END:
                break
        length = declared_size(response.headers)  # only now: before, start_response could change it
    except BaseException:
        _close(result)
        raise
    response.sent = True
    if length is None or len(data) < length:
        body = _body(data, chunks, length, result)
        next(body)  # begun, or its close() would not reach the application's
        try:
            proto.response_iter(*head_of(response), body)
        finally:
            body.close()
        return
    try:
        proto.response_bytes(*head_of(response), data[:length])
    except BaseException:  # a header that cannot be sent
        _close(result)
        raise
    try:
        try:
            for _ in chunks:  # beyond the declared length: not sent
                pass
        finally:
            _close(result)
    except Exception as error:
        late(error)


def late(error: Exception) -> None:
    """Log an error that came too late to change the response."""
    LOG.error("the application raised after its answer was complete", exc_info=error)


def _body(
    data: bytes, chunks: Iterator[bytes], length: int | None, result: Iterable[bytes]
) -> Generator[bytes, None, None]:
    """The chunks of the body: an empty one, `data`, then the rest. At most `length` bytes in all."""
    left = sys.maxsize if length is None else length - len(data)
    try:
        yield b""
        if data:
            yield data
        for each in chunks:
            chunk = _bytes(each)
            if len(chunk) > left:
                chunk = chunk[:left]
            left -= len(chunk)
            yield chunk
    finally:
        _close(result)


def _bytes(chunk: bytes) -> bytes:
    if not isinstance(chunk, bytes):
        raise TypeError(f"a WSGI response yields bytes, not {type(chunk).__name__}")
    return chunk


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()
