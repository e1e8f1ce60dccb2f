"""The answers to requests that are refused because of what the client sends: the same on every engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

LINGER, DROPPED, DROPPED_BODY = 2.0, 2**20, 2**26
"""Seconds, and bytes, for which a refused client is read, so that no reset takes the answer from it.

More bytes of a body that is too large: its client looks for the answer only behind it.
"""


class Answer(NamedTuple):
    """A status and its reason phrase."""

    status: int
    phrase: str

    @property
    def body(self) -> bytes:
        """The text for a person."""
        return f"{self.status} {self.phrase}\n".encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The response's headers: it is the last of its connection."""
        length = str(len(self.body)).encode()
        return [(b"content-type", b"text/plain"), (b"content-length", length), (b"connection", b"close")]

    def messages(self, *, unended: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """The response as ASGI's messages; `unended`: it ends once the application has returned."""
        headers = [each for each in self.headers if not unended or each[0] != b"content-length"]
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        body = {"type": "http.response.body", "body": self.body}
        return start, {**body, "more_body": True} if unended else body

    @property
    def raw(self) -> bytes:
        """The response as HTTP/1.1."""
        return self.encode()

    def encode(self, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """The response as HTTP/1.1, with `more` headers before its own."""
        head = b"".join(name + b": " + value + b"\r\n" for name, value in (*more, *self.headers))
        return f"HTTP/1.1 {self.status} {self.phrase}\r\n".encode() + head + b"\r\n" + self.body


MALFORMED = Answer(400, "Bad Request")
TIME = Answer(408, "Request Timeout")
LARGE = Answer(413, "Content Too Large")
FIELDS = Answer(431, "Request Header Fields Too Large")
FULL = Answer(503, "Service Unavailable")
BY_STATUS = {each.status: each for each in (MALFORMED, TIME, LARGE, FIELDS, FULL)}
