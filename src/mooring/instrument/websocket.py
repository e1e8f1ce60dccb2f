"""The WebSocket part of asgi.py: a WebSocket is counted and logged at the response to its handshake, and
open ones are counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any
from urllib.parse import quote

from mooring.application.model import ASGI, Receive, Scope, Send
from mooring.instrument.asgi_line import Entries, status_of
from mooring.instrument.meter import FAILED, LEFT, Meter, table
from mooring.instrument.request_exit import failure_of
from mooring.instrument.request_id import AsgiIdentifier, with_headers
from mooring.scoreboard.row import METHOD_BASE, WEBSOCKETS

ACCEPTED = 101
_ANSWERS = {"websocket.accept": ACCEPTED, "websocket.close": 403}


def wrap_websocket(  # noqa: C901, PLR0915
    application: ASGI,
    prepare: Callable[[Scope], None],
    meter: Meter,
    lines: Sequence[Entries | None],
    identify: AsgiIdentifier | None,
) -> ASGI:
    """`application`, wrapped for WebSocket scopes; `lines[0]` makes their lines, and may change.

    Handshakes are not in the latency histogram.
    """
    cells, base = meter.row.cells, METHOD_BASE["WEBSOCKET"]
    begin, end = table(meter.row)

    async def websocket(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901
        began = monotonic()
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        query = scope.get("query_string")
        ids = identify(scope) if identify is not None else ("-", "-", [])
        place = begin(base, raw, began)
        status, unanswered = 0, LEFT

        def answer(code: int, message: Any) -> None:
            nonlocal status
            status = code or FAILED
            end(place)  # first, since the rest may fail on what the application has sent
            cells[base + (code // 100 & 7)] += 1.0
            cells[WEBSOCKETS] += code == ACCEPTED
            entries = lines[0]
            if entries is not None:
                now = monotonic()
                exchange = [None, scope, raw, query, began, base, place, ids, 0, message, True]
                entries(exchange, code, now - began, now)

        def sending(message: Any) -> Awaitable[None]:
            if not status:
                try:
                    kind = message["type"]
                    refused = kind == "websocket.http.response.start"
                    code = status_of(message["status"]) if refused else _ANSWERS.get(kind)
                    if code is not None:
                        answer(code, message)
                        if ids[2] and kind != "websocket.close":
                            message = with_headers(message, ids[2])
                except Exception:
                    pass  # an invalid message: the engine decides what to do with it
            found: Awaitable[None] = send(message)
            return found

        try:
            prepare(scope)
            await application(scope, receive, sending)
            unanswered = FAILED
        except Exception:
            unanswered = FAILED
            raise
        except BaseException as error:
            failure = failure_of(error, "WEBSOCKET", raw)
            if failure is None:
                raise
            unanswered = FAILED
            raise failure from error
        finally:
            if not status:
                answer(unanswered, None)
            cells[WEBSOCKETS] -= status == ACCEPTED

    return websocket
