"""uvicorn's HTTP/1 protocol with what it lacks: a limit for a request's head, correct responses to HTTP/1.0,
and the mark for the drain's gate.

httptools accepts headers without limit; uvicorn 0.54 sends chunks to HTTP/1.0 clients, which can't read them.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from mooring.instrument.request_id import is_named

MAX_HEAD = 64 * 1024  # bytes of a request's line and headers that are always taken


class UnchunkedCycle(RequestResponseCycle):
    """A response that ends with its connection if it has no Content-Length: RFC 9112, 6.1 and 6.3."""

    endless = False

    async def send(self, message: Any) -> None:
        """As uvicorn's, which needs a length or chunks: without a length, each part's own length is given."""
        if message["type"] == "http.response.start":
            headers = [*(message.get("headers") or ())]  # an iterable: it may be one that is read once
            message = {**message, "headers": headers}
            self.endless = not any(is_named(header, b"content-length") for header in headers)
            if self.endless:
                self.chunked_encoding = False
        elif self.endless:
            body = message.get("body")
            if not body:  # None: uvicorn takes it as empty where it sends chunks
                message = {**message, "body": b""}
            self.expected_content_length = len(body) if body else 0
        await super().send(message)


class LimitedHttpToolsProtocol(HttpToolsProtocol):
    """Responds with 431 to a head that is still unfinished MAX_HEAD bytes after its first read.

    The first read is bounded already (64 KiB on uvloop, 256 KiB on asyncio). Counting its bytes would cost
    every request more than this one check.
    """

    unfinished = 0
    head: object = None

    def on_headers_complete(self) -> None:
        """As uvicorn's, which always responds as to HTTP/1.1; HTTP/1.0 gets `UnchunkedCycle` here."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["http_version"] == "1.0":
            self.cycle.__class__ = UnchunkedCycle

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; then check whether a head is still unfinished."""
        super().data_received(data)
        scope: Any = self.scope
        if scope is None or "method" in scope:  # uvicorn sets it when the head is complete
            return
        if self.headers is not self.head:  # a new list for each request
            self.head, self.unfinished = self.headers, 0
            return
        self.unfinished += len(data)
        if self.unfinished > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def mark(self) -> object:
        """The mark for the drain's gate (engines/common/gate.py): None while the connection is busy, else a
        value that changes with each action of the client.
        """
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return None
        return self.cycle, self.timeout_keep_alive_task, self.unfinished, len(self.headers or ())
