"""The wrapper around an ASGI application: the only code of mooring's on a request's path.

It does in one pass: trusted proxy headers, root_path, request id, counters and histogram, the requests in
flight, the access log's line. The wrapper for WSGI is wsgi.py, WebSockets are in websocket.py. Lifespan and
`receive` pass through unchanged. Scopes are changed in place, never copied. A message that breaks the ASGI
specification is passed unchanged to the engine, which decides what to do with it. Not for the form of a line
(logs/access/line.py), nor for which peers to trust (proxy.py).
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from time import monotonic
from types import MethodType
from typing import Any
from urllib.parse import quote

from mooring.application.model import ASGI, Receive, Scope, Send
from mooring.instrument import asgi_line
from mooring.instrument.asgi_line import (
    BASE,
    BEGAN,
    DONE,
    IDS,
    NO_IDS,
    OPENING,
    PLACE,
    SCOPE,
    SEND,
    SIZE,
    Entries,
    Exchange,
    asgi_entries,
    size_of,
    status_of,
)
from mooring.instrument.disconnect import client_left
from mooring.instrument.drain import CLOSE
from mooring.instrument.meter import FAILED, LEFT, Begin, Meter, lines_agree, on_access_loggers, table
from mooring.instrument.request_exit import failure_of
from mooring.instrument.request_id import AsgiIdentifier, is_named, with_headers
from mooring.instrument.websocket import wrap_websocket
from mooring.logs.access.parts import apache_date
from mooring.logs.escape import METHODS, kept_agent_field, kept_agents, kept_targets, target_field
from mooring.scoreboard import accelerator
from mooring.scoreboard.row import (
    BOUNDS,
    DURATIONS,
    HISTOGRAM,
    OTHER_BASE,
    OVERFLOW,
    PLACES,
    RAISED,
    REQUEST_BASE,
)

PrepareScope = Callable[[Scope], None]
Sending = Callable[[Exchange, Any], Awaitable[None]]
Finish = Callable[[Exchange, int, bool], None]


def wrap_asgi(
    application: ASGI, believe: PrepareScope, root: str, meter: Meter, identify: AsgiIdentifier | None = None
) -> ASGI:
    """`application`, wrapped: `believe` and `root` are applied to each scope, requests counted and logged."""
    prepare = _preparation(believe, root)
    entries = asgi_entries(meter)
    clock, base_of, bound = monotonic, REQUEST_BASE.get, MethodType
    # First: this decides whether C or Python counts, for WebSockets too.
    begin, sending, finish = _recorder(meter, entries)
    handshakes = [entries]
    websocket = wrap_websocket(application, prepare, meter, handshakes, identify)

    def renew(changed: Meter) -> None:
        handshakes[0] = asgi_entries(changed)

    on_access_loggers(meter, renew)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            other = websocket if scope["type"] == "websocket" else application
            return await other(scope, receive, send)
        began = clock()
        raw = ("raw_path" in scope and scope["raw_path"]) or quote(scope["path"]).encode()
        base = base_of(scope["method"], OTHER_BASE)
        ids = NO_IDS if identify is None else identify(scope)
        place = begin(base, raw, began)
        exchange = [send, scope, raw, scope.get("query_string"), began, base, place, ids, 0, None, False]
        unanswered, raised = LEFT, False
        try:
            prepare(scope)
            await application(scope, receive, bound(sending, exchange))
            unanswered = FAILED
        except Exception:
            unanswered, raised = FAILED, True
            raise
        except BaseException as error:
            failure = failure_of(error, scope["method"], raw)
            if failure is None:
                raise
            unanswered, raised = FAILED, True
            raise failure from error
        finally:
            if not exchange[DONE]:
                if exchange[OPENING] is None and unanswered == FAILED and client_left(scope, receive):
                    unanswered = LEFT
                finish(exchange, unanswered, raised)

    return asgi


def _recorder(meter: Meter, entries: Entries | None) -> tuple[Begin, Sending, Finish]:  # noqa: C901, PLR0915
    """Three functions: for a new request, for each message of its response, and for a request that ends
    without the last message.
    """
    accelerated = _accelerated(meter)
    if accelerated is not None:
        return accelerated
    clock, bounds, bisect = monotonic, BOUNDS, bisect_left
    cells, drain = meter.row.cells, meter.drain
    begin, end = table(meter.row)

    def renew(changed: Meter) -> None:
        nonlocal entries
        entries = asgi_entries(changed)

    on_access_loggers(meter, renew)
    give = meter.row.free.append

    def sending(exchange: Exchange, message: Any) -> Awaitable[None]:  # noqa: C901, PLR0912
        try:
            kind = message["type"]
            if kind == "http.response.body":
                if "body" in message:
                    body = message["body"]
                    exchange[SIZE] += len(body) if body.__class__ is bytes else size_of(body)
                if not ((message.get("more_body")) or exchange[DONE]):
                    status = FAILED
                    if exchange[OPENING] is not None:
                        status = exchange[OPENING]["status"]
                        if status.__class__ is not int or not 0 <= status < 1000:
                            status = status_of(status)
                    exchange[DONE] = True
                    # Written out, as is table(): a call for each would cost more than what it does.
                    place = exchange[PLACE]
                    if place in PLACES:
                        cells[place] = 0.0
                        give(place)
                    elif not place:
                        cells[OVERFLOW] -= 1.0
                    now = clock()
                    seconds = now - exchange[BEGAN]
                    cells[exchange[BASE] + (status // 100 & 7)] += 1.0
                    cells[HISTOGRAM + bisect(bounds, seconds)] += 1.0
                    cells[DURATIONS] += seconds
                    if entries is not None:
                        entries(exchange, status, seconds, now)
            elif kind == "http.response.start":
                exchange[OPENING] = message
                if exchange[IDS][2]:
                    exchange[OPENING] = message = with_headers(message, exchange[IDS][2])
                if drain.begun:
                    exchange[OPENING] = message = last_of_connection(message, exchange[SCOPE])
            elif kind == "http.response.pathsend":
                exchange[SIZE] += _file_size(message["path"])
        except Exception:
            pass  # an invalid message: if it was the last one, finish() counts the request
        passed: Awaitable[None] = exchange[SEND](message)
        return passed

    def finish(exchange: Exchange, unanswered: int, raised: bool) -> None:
        exchange[DONE] = True  # later messages are not counted
        end(exchange[PLACE])
        # No engine sends the head before the first part of the body: without a part, a failure is a 500.
        seen = exchange[OPENING] is not None and (exchange[SIZE] or not raised)
        status = unanswered
        if seen:
            try:
                status = status_of(exchange[OPENING]["status"])
            except Exception:  # the engine may have changed the message: there is no usable status
                status = FAILED
        now = clock()
        seconds = now - exchange[BEGAN]
        cells[exchange[BASE] + (status // 100 & 7)] += 1.0
        cells[HISTOGRAM + bisect(bounds, seconds)] += 1.0
        cells[DURATIONS] += seconds
        if raised or (unanswered == FAILED and exchange[OPENING] is None):
            cells[RAISED] += 1.0
        if entries is not None:
            entries(exchange, status, seconds, now)

    return begin, sending, finish


def agrees() -> bool:
    """Whether there is a C twin with these constants."""
    return accelerator.agrees("asgi", FAILED=FAILED, ID_COUNT=len(NO_IDS))


def _accelerated(meter: Meter) -> tuple[Begin, Sending, Finish] | None:
    """What `_recorder` returns, in C; None without the accelerator."""
    if not (agrees() and asgi_line.agrees() and lines_agree()):
        return None
    lines = meter.lines
    row = accelerator.row(meter.row, lines.write if lines is not None else None)
    if row is None:
        return None
    timed = lines.format.timed if lines is not None else None
    asgi = accelerator.c.Asgi(
        row=row,
        drain=meter.drain,
        closing=last_of_connection,
        with_headers=with_headers,
        file_size=_file_size,
        status_of=status_of,
        entries=asgi_entries(meter, every=True),
        wanted=lines.wanted if lines is not None else None,
        nameless=lines.nameless if lines is not None else "-",
        methods=METHODS,
        targets=kept_targets,
        target_field=target_field,
        agents=kept_agents,
        agent_field=kept_agent_field,
        date=accelerator.date(apache_date) if timed is not None else None,
        timed=bool(timed),
    )
    on_access_loggers(meter, lambda changed: asgi.renew(asgi_entries(changed, every=True)))
    return row.begin, asgi.sending, asgi.finish


def last_of_connection(message: Any, scope: Scope) -> Any:
    """A copy of a response's first message with `Connection: close`, not in HTTP/2 (RFC 9113, 8.2.2)."""
    if not scope["http_version"].startswith("1"):
        return message
    own = [header for header in message.get("headers") or () if not is_named(header, b"connection")]
    return {**message, "headers": [*own, CLOSE]}


def _preparation(believe: PrepareScope, root: str) -> PrepareScope:
    """A function that changes each scope: proxy headers, and root_path as in uvicorn >= 0.26."""
    if not root:
        return believe
    inside, raw_root = root + "/", quote(root).encode()

    def prepare(scope: Scope) -> None:
        believe(scope)
        scope["root_path"] = root
        path = scope["path"]
        if path.startswith("/") and path != root and not path.startswith(inside):
            scope["path"] = root + path
            if scope.get("raw_path") is not None:
                scope["raw_path"] = raw_root + scope["raw_path"]

    return prepare


def _file_size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
