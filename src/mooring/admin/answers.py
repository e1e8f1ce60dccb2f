"""The admin endpoint's requests and responses, as values. Not for sending them: server.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

_PHRASES = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_ABSOLUTE = re.compile("https?://", re.IGNORECASE)

Made = TypeVar("Made")
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class Request(NamedTuple):
    """A request's head: the path has no query; `host` and `authorization` are those fields, or empty."""

    method: str
    path: str
    host: str = ""
    authorization: str = ""


class Answer(NamedTuple):
    """A response: its status, and its body as text, as bytes of content type `kind`, or as a JSON value."""

    status: int
    body: Any
    kind: str = ""
    headers: tuple[str, ...] = ()  # whole header lines

    def whole(self) -> Answer:
        """The same response with its body as bytes, so that it can be kept and sent to many clients."""
        if isinstance(self.body, bytes):
            return self
        if isinstance(self.body, str):
            return self._replace(body=_end_line(self.body).encode("utf-8", "replace"), kind=self.kind or TEXT)
        text = json.dumps(self.body, separators=(",", ":"), default=str)
        return self._replace(body=_end_line(text).encode(), kind=self.kind or JSON)

    def encode(self, *, head_only: bool = False) -> bytes:
        """The bytes of the HTTP/1.1 response; with `head_only`, for a HEAD request, without the body."""
        _, body, kind, headers = self.whole()
        lines = (
            f"HTTP/1.1 {self.status} {_PHRASES[self.status]}",
            f"content-type: {kind}",
            f"content-length: {len(body)}",
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            *headers,
            "connection: close",
        )
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head_only else body)


def _end_line(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def attempt(make: Callable[[], Made], failed: Callable[[Exception], None]) -> Made | Answer:
    """What `make` returns; where it raises, `failed` gets the error, and the response is a 500.

    A bug in a page must not end the supervisor.
    """
    try:
        return make()
    except Exception as error:
        failed(error)
        return Answer(500, "internal error")


class Deferred:
    """A response that comes later: by `complete`, or at `deadline` (monotonic seconds) by `expired()`.

    Several clients may wait for the same one.
    """

    def __init__(self, deadline: float, expired: Callable[[], Answer]) -> None:
        self.deadline = deadline
        self.expired = expired
        self.answer: Answer | None = None
        self._waiting: list[Callable[[Answer], None]] = []

    def complete(self, answer: Answer) -> None:
        """Give the response to all clients that wait. A second call does nothing."""
        if self.answer is not None:
            return
        self.answer = answer
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell(answer)

    def when_done(self, tell: Callable[[Answer], None]) -> None:
        """Call `tell` with the response: at once if it is complete, else when it is."""
        if self.answer is not None:
            tell(self.answer)
        else:
            self._waiting.append(tell)


def parse(head: bytes) -> Request | None:
    """A request's head; None where it is not an HTTP/1 request, or names two hosts: RFC 9112, 3.2."""
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    fields: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            break  # the end of the head
        name = name.lower()
        if name == "host" and name in fields:
            return None
        fields[name] = value.strip(" \t")
    path, host = words[1].partition("?")[0], fields.get("host", "")
    # The absolute form, which a server has to accept: 3.2.2. A page in a browser chooses the path, which may
    # have a URL in it; so the Host field alone says under which name the browser knows this.
    if _ABSOLUTE.match(path):
        target, _, path = path.partition("://")[2].partition("/")
        path, host = f"/{path}", host or target
    return Request(words[0], path, host, fields.get("authorization", ""))
