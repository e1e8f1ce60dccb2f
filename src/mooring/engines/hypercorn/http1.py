"""hypercorn's HTTP/1 with one reading of a request, and with limits on its head and on what brings no body.

By itself hypercorn 0.18 (with h11) takes a request with a length and chunks, and a folded Transfer-Encoding;
it has no limit for the number of fields, and none for the extensions of many chunks.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

import h11
import hypercorn.protocol
from h11 import _readers
from h11._readers import ChunkedReader
from hypercorn.protocol.h11 import H11Protocol

from mooring.engines.common.refusal import BY_STATUS
from mooring.engines.hypercorn.connections import of
from mooring.engines.hypercorn.limits import Limits

_LINE = 2  # bytes at the end of a line
_READ = 2**16  # bytes that hypercorn reads at once
_SHARE = 16  # bytes that each byte of a body may bring with it: chunks of one byte have 5
_VERSIONS = (b"1.1", b"1.0")
_FRAMING = (b"transfer-encoding", b"content-length", b"host")
_original_folds = _readers._obsolete_line_fold
_create_stream = H11Protocol._create_stream


class LimitedH11Protocol(H11Protocol):
    """Answers 400 or 431 to heads that mooring takes on no engine."""

    limits: Limits  # set on the class
    answered = 0  # the status of an error that hypercorn has answered itself

    def _create_stream(self, request: h11.Request) -> Coroutine[Any, Any, None]:
        """As hypercorn's, unless the request is refused. Not a coroutine function: that would cost more."""
        count = len(request.headers)
        if count > self.limits.max_fields:
            return self._refused("head_fields", 431, f"{count} fields")
        if request.http_version not in _VERSIONS:
            return self._refused("malformed", 400, "no version of HTTP/1")
        if isinstance(self.connection._reader, ChunkedReader):  # type: ignore[union-attr]
            if any(name == b"content-length" for name, _ in request.headers):
                return self._refused("malformed", 400, "both Content-Length and Transfer-Encoding")
            _Overhead(self)
        return _create_stream(self, request)

    async def _refused(self, reason: str, status: int, detail: str) -> None:
        await of(self).refuse(reason, status, detail)

    async def _send_error_response(self, status_code: int) -> None:
        self.answered = status_code
        answer = BY_STATUS.get(status_code)
        if answer is None:
            await super()._send_error_response(status_code)
            return
        headers = [*answer.headers, *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=answer.body))
        await self._send_h11_event(h11.EndOfMessage())


class _Overhead:
    """Counts what comes beside a chunked body: extensions and trailers are bounded like a head."""

    def __init__(self, protocol: LimitedH11Protocol) -> None:
        connection: Any = protocol.connection
        self._receive, self._request = connection.receive_data, protocol.keep_alive_requests
        self._protocol, self._connection = protocol, connection
        self._most, self._came = protocol.limits.max_head + 2 * _READ, 0
        connection.receive_data = self.receive

    def receive(self, data: bytes) -> None:
        """As h11's, which then finds that there is too much."""
        protocol, stream = self._protocol, self._protocol.stream
        if protocol.keep_alive_requests > self._request + 1 or getattr(stream, "ended", stream is None):
            self._connection.receive_data = self._receive  # this request is over
        else:
            self._came += len(data)
            if self._came - (1 + _SHARE) * getattr(stream, "body", 0) > self._most:
                self._connection.next_event = _too_much
        self._receive(data)


def _too_much() -> Any:
    raise h11.RemoteProtocolError("a chunked body with too much that is none", error_status_hint=431)


def _no_folded_framing(lines: Iterable[bytes]) -> Iterable[bytes]:
    """A head's lines, if they are not too long, and no fold is where servers differ in their reading."""
    found: list[bytes] = lines if isinstance(lines, list) else list(lines)
    if sum(map(len, found)) + _LINE * len(found) > LimitedH11Protocol.limits.max_head:
        raise h11.LocalProtocolError("a head that is too large", error_status_hint=431)
    if not found or min(found) >= b"!":
        return found  # no line begins with a blank
    name = b""
    for line in found:
        if line[:1] not in (b" ", b"\t"):
            name = bytes(line).partition(b":")[0].strip().lower()
        elif name in _FRAMING:
            raise h11.LocalProtocolError("a folded field that frames the message")
    return _original_folds(found)


def install(limits: Limits) -> None:
    """Replace hypercorn's protocol by this one, in this process."""
    LimitedH11Protocol.limits = limits
    vars(hypercorn.protocol)["H11Protocol"] = LimitedH11Protocol
    vars(_readers)["_obsolete_line_fold"] = _no_folded_framing
