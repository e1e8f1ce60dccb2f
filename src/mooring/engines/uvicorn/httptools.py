"""uvicorn's HTTP/1 protocol with what it lacks: limits for heads and bodies, one reading of a request,
correct responses to HTTP/1.0, and the mark for the drain's gate.

httptools accepts headers and trailers without limit, adds trailers to the headers, and takes a body for
another protocol's data where a request has an Upgrade field; uvicorn 0.54 sends chunks to HTTP/1.0 clients,
which can't read them, and reads on while pipelined requests wait. The limits of time: watch.py. Not for what
is read, and when: reading.py.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mooring.engines import Serving
from mooring.engines.common.linger import linger
from mooring.engines.common.refusal import BY_STATUS
from mooring.engines.uvicorn import limits
from mooring.engines.uvicorn.limits import Crowd, Limits
from mooring.engines.uvicorn.reading import (
    ALL,
    SLICE,
    Body,
    Flow,
    Portions,
    Trailers,
    asks_upgrade,
    framing_of,
    other_host,
)
from mooring.instrument.request_id import is_named

_FRAMING = 9  # a chunk of one byte takes five more; so much for each byte of a body is no attack
_FLOOD = "trailers, chunk extensions or empty lines without end"
_SLASH = ord("/")
_LITTLE = 16 * 1024  # bytes that are still read of a flood
_WATCHED = frozenset((b"host", b"expect", b"content-length", b"transfer-encoding"))


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


class Refusal(NamedTuple):
    """The status of the answer, one of REFUSALS (scoreboard/row.py), and what is logged."""

    status: int
    reason: str
    detail: str = ""


class _RefusedError(Exception):
    """Ends the parser's work from inside a callback."""


class LimitedHttpToolsProtocol(HttpToolsProtocol):
    """Refuses what breaks the limits: with an answer where one is possible, then the end of the connection.

    A usual request costs a few comparisons, in `on_header`, `on_headers_complete` and `data_received`.
    """

    # not in the instance's dict: above 30 names CPython keeps it in a slower form, and uvicorn has 28
    __slots__ = (
        *("max_head", "max_fields", "max_body", "made", "awaited", "since", "sending", "sending_since"),
        *("rated", "waited", "window", "refusal", "unfinished", "measure", "taken", "counted", "began"),
        *("hosts", "framing", "length", "coding", "upgrading", "portions", "whole"),
    )
    limits = Limits()
    crowd = Crowd()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.clear()

    def clear(self) -> None:
        """The state of a new connection."""
        self.max_head, self.max_fields = self.limits.max_head, self.limits.max_fields
        self.max_body = self.limits.max_body
        self.made = 0.0  # the loop's time at which the connection was made
        # what the client owes since `since`, with the mark of its progress; the same for what it takes
        self.awaited: object = None
        self.since = 0.0
        self.sending: object = None
        self.sending_since = 0.0
        # the request whose body is rated, seconds of waiting in this period, `taken` at the period's start
        self.rated: object = None
        self.waited, self.window = 0.0, 0
        self.refusal: Refusal | None = None
        self.unfinished = 0  # bytes since the last whole head that have brought no body
        self.measure = False  # whether a head that is completed now may be too large
        self.taken = self.counted = 0  # bytes of bodies; of these, accounted for in `unfinished`
        self.began = 0  # `taken` at the head
        self.hosts = 0  # Host fields of this head
        self.framing = 0  # 1 for each Content-Length, 2 for each Transfer-Encoding of this head
        self.length = self.coding = b""  # their values
        self.upgrading = False  # to a WebSocket
        self.portions: Portions | None = None
        self.whole = min(SLICE, self.max_head)  # so many bytes are parsed at once

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; then see whether there is room."""
        super().connection_made(transport)
        self.flow: Flow = Flow(transport, self)
        self.made = self.since = self.loop.time()
        most = self.limits.max_connections
        if 0 < most < len(self.connections):
            connections: Any = self.connections
            if not self.crowd.enter(self, connections, self.limits):
                self.answer(Refusal(503, "connections"), ((b"retry-after", b"1"),))

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's; and note the fields that two readers might read differently."""
        name = name.lower()
        if name in _WATCHED:
            if name == b"host":
                self.hosts += 1
            elif name == b"expect":
                if value.lower() == b"100-continue":
                    self.expect_100_continue = True
            elif name == b"content-length":
                self.framing += 1
                self.length = value
            else:
                self.framing += 2
                self.coding = value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """As uvicorn's, which always responds as to HTTP/1.1; HTTP/1.0 gets `UnchunkedCycle` here."""
        framing = self.framing
        if (
            framing > 1
            or self.hosts > 1
            or self.measure
            or len(self.headers) > self.max_fields
            or (framing and self.max_body)
            or self.url[0] != _SLASH
        ):
            self._check_head()
        self.hosts = 0
        before = self.cycle
        HttpToolsProtocol.on_headers_complete(self)  # super() costs more
        if self.cycle is before:
            self.upgrading = True
            return
        self.began = self.taken
        if framing:
            self.framing = 0
            if framing > 1:
                # trailers come here: the application has the head's, which do not change under it
                self.length = self.coding = b""
                self.headers = Trailers()
        if self.scope["http_version"] == "1.0":
            self.cycle.__class__ = UnchunkedCycle

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        super().connection_lost(exc)
        self.portions = None

    def _check_head(self) -> None:
        limits, refusal = self.limits, None
        if self.hosts > 1:
            refusal = Refusal(400, "malformed", "more than one Host field")
        elif self.framing > 1 and not (self.framing == 2 and self.coding):
            refusal = Refusal(400, "malformed", "more than one length of the body")
        elif self.coding and self.coding.lower() != b"chunked":
            refusal = Refusal(400, "malformed", "a transfer coding that is not chunked")
        elif self.url[0] != _SLASH and other_host(self.url, self.headers):
            refusal = Refusal(400, "malformed", "a target and a Host field that differ")
        elif len(self.headers) > limits.max_fields:
            refusal = Refusal(431, "head_fields", f"{len(self.headers)} fields")
        elif self.measure and self._head_size() > limits.max_head:
            refusal = Refusal(431, "head_size")
        elif limits.max_body and self.framing == 1 and int(self.length) > limits.max_body:
            refusal = Refusal(413, "body_size", f"{int(self.length)} bytes announced")
        if refusal is not None:
            self.refusal = refusal
            raise _RefusedError

    def _head_size(self) -> int:
        """Bytes of the line and the fields that the parser has told of."""
        return len(self.url) + 16 + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _get_upgrade(self) -> bytes | None:
        return asks_upgrade(self.headers)

    def on_body(self, body: bytes) -> None:
        """As uvicorn's; and count it. The parser takes no bodies where it upgrades."""
        size = len(body)
        self.taken += size
        cycle, most = self.cycle, self.max_body
        if most and self.taken - self.began > most:
            self.refusal = Refusal(413, "body_size", f"more than {most} bytes")
            raise _RefusedError
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """As uvicorn's."""
        cycle = self.cycle
        if self.upgrading:
            return
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.message_event.set()
        else:
            self.loop.call_soon(self._is_idle)  # when all that was read is parsed

    def _is_idle(self) -> None:
        """A body is there whose request was answered before: now the time of an idle connection begins."""
        scope: Any = self.scope
        if (
            self.timeout_keep_alive_task is None
            and self.cycle.response_complete
            and not self.cycle.more_body
            and "method" in scope
            and self.refusal is None
            and not self.transport.is_closing()
        ):
            patience = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(patience, self.timeout_keep_alive_handler)

    def on_response_complete(self) -> None:
        """As uvicorn's, with fewer calls: this pays for what the limits cost."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            patience = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(patience, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes | memoryview, *, portion: bool = False) -> None:
        """As uvicorn's; then check what came that is neither a whole request nor a part of a body."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self.refusal is not None:
            return  # earlier requests are still answered
        size = len(data)
        if size > self.whole and not portion:
            self.by_portions(data)
            return
        before = self.scope
        self.measure = portion or self.unfinished > 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.refuse(self.refusal or Refusal(400, "malformed", str(error)))
            return
        except httptools.HttpParserUpgrade as error:
            self._upgrade(data, error.args[0])
            return
        scope: Any = self.scope
        if scope is not before and "method" in scope and not self.cycle.more_body:
            self.unfinished = 0
            return
        self._account(before, size)

    def by_portions(self, data: bytes | memoryview) -> None:
        """Parse much data, or behind requests that wait: in portions, and no more than can be worked on."""
        if self.portions is None:
            self.portions = Portions(self)
        self.portions.take(data)

    def _upgrade(self, data: bytes | memoryview, end: int) -> None:
        """After a head that asks for another protocol: a WebSocket begins, any other wish is ignored."""
        cycle: Any = self.cycle
        if self.upgrading:
            if cycle is None or cycle.response_complete:
                self.handle_websocket_upgrade()
            else:
                self.refuse(Refusal(400, "malformed", "an upgrade behind an unanswered request"))
            return
        self.unfinished = 0
        if self.parser.get_method() == b"CONNECT":
            cycle.keep_alive = False  # what follows is no HTTP to a client that believes in its tunnel
            self.refusal = Refusal(400, "malformed")
            return
        field = framing_of(self.scope["headers"])
        if field:
            cycle.more_body = True
            cycle.message_event.clear()
            self.parser = Body(self, field).parser
        if end < len(data):
            self.by_portions(memoryview(data)[end:])

    def _account(self, before: object, size: int) -> None:
        scope: Any = self.scope
        brought, self.counted = self.taken - self.counted, self.taken
        if scope is not before:  # a head has begun, behind what else was read
            self.unfinished = 0 if "method" in scope else self._head_size()
        else:
            self.unfinished = max(0, self.unfinished + size - _FRAMING * brought)
        if self.unfinished > self.max_head:
            flood = scope is None or "method" in scope
            self.refuse(Refusal(431, "head_size", _FLOOD if flood else ""))
        elif self.headers is not None and len(self.headers) > self.max_fields and "method" not in scope:
            self.refuse(Refusal(431, "head_fields", f"more than {self.max_fields} fields"))
        elif self.unfinished > SLICE:
            self.whole = ALL

    def refuse(self, refusal: Refusal) -> None:
        """Answer and end the connection; end it without an answer if one has begun.

        A request that is being answered is not disturbed: the connection ends after its response.
        """
        if self.transport.is_closing():
            return
        self.refusal = refusal
        self.limits.refused(refusal.reason, self.client, refusal.detail)
        cycle: Any = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self.answer(refusal)
        elif not cycle.more_body:
            cycle.keep_alive = False
            self.flow.pause_reading()
        else:
            begun = cycle.response_started or self.pipeline
            cycle.disconnected = True  # the application sees that the client is gone
            cycle.message_event.set()
            self.pipeline.clear()
            if begun:
                linger(self, self.transport, _LITTLE)
            else:
                self.answer(refusal)

    def answer(self, refusal: Refusal, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Respond to what is no request, and end the connection."""
        self.refusal = refusal
        self.transport.write(BY_STATUS[refusal.status].encode((*self.server_state.default_headers, *fields)))
        if refusal.detail == _FLOOD:
            linger(self, self.transport, _LITTLE)
        elif refusal.status == 413:
            linger(self, self.transport, 0)  # a body may be large; its client looks for the answer after it
        else:
            linger(self, self.transport)

    def mark(self) -> object:
        """The mark for the drain's gate (engines/common/gate.py): None while the connection is busy, else a
        value that changes with each action of the client.
        """
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return None
        return self.cycle, self.timeout_keep_alive_task, self.unfinished, len(self.headers or ())

    def idle_since(self) -> float | None:
        """The loop's time since which no request is there; None while one is, or while it closes."""
        cycle, timer = self.cycle, self.timeout_keep_alive_task
        if self.transport.is_closing() or self.refusal is not None:
            return None
        if timer is not None:
            return timer.when() - self.timeout_keep_alive
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            return self.since
        return None

    def awaits(self) -> tuple[str, object] | None:
        """What the client owes, `head` or `body`, with a mark that changes with its progress; or None."""
        cycle: Any = self.cycle
        if self.timeout_keep_alive_task is not None or self.refusal is not None or self.pipeline:
            return None
        if cycle is None:
            return "head", None
        if cycle.more_body:
            event: Any = cycle.message_event
            if cycle.response_complete or (event._waiters and not event.is_set()):
                return "body", (cycle, self.taken)
            return None
        return ("head", cycle) if cycle.response_complete else None

    def expire(self, what: str) -> None:
        """End a connection whose client took too long."""
        scope: Any = self.scope
        if what == "head" and scope is None:
            self.refusal = Refusal(408, "head_timeout", "not a byte")
            self.limits.refused("head_timeout", self.client, self.refusal.detail)
            self.transport.close()  # it has asked nothing
        else:
            self.refuse(Refusal(408, f"{what}_timeout"))

    def delivering(self) -> bool:
        """Whether a response is on its way to the client."""
        cycle = self.cycle
        return cycle is not None and cycle.response_started and not cycle.response_complete


def limited(serving: Serving) -> type[LimitedHttpToolsProtocol]:
    """The protocol with a worker's limits."""
    body = {"limits": limits.of(serving), "crowd": Crowd(), "__slots__": ()}
    return type(LimitedHttpToolsProtocol.__name__, (LimitedHttpToolsProtocol,), body)
