"""Limits on requests, between the application and the wrapper: how many at once, and how long each may take.

Used only if a setting asks for a limit. A refused request is counted and logged like any other, since the
wrapper is outside. WebSockets and lifespan pass through.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from mooring.application.model import Send
from mooring.instrument.late import LATE, RequestTimeoutError
from mooring.scoreboard import accelerator
from mooring.scoreboard.row import OVERFLOW, REJECTED, REQUESTS, TIMED_OUT, Row

_FULL = b"503 Service Unavailable: too many requests at once\n"
_RETRY_AFTER = b"1"  # seconds
_BODIES = {"http.response.body", "http.response.pathsend"}


def limit(
    application: Callable[..., Any],
    interface: str,
    row: Row,
    most: int,
    seconds: float,
    *,
    threads: int = 1,
    recycle: Callable[[str], object] = lambda _why: None,
) -> Callable[..., Any]:
    """`application` with at most `most` requests in flight (0: any number), each for `seconds` (0: any time).

    On WSGI, `recycle` is called with the reason when half of the worker's `threads` are lost in requests that
    have taken too long.
    """
    if interface == "wsgi":
        if seconds:
            from mooring.instrument.wsgi_deadline import timed  # few set a limit

            application = timed(application, row, seconds, threads, recycle)
        return _limited_wsgi(application, row, most) if most else application
    if seconds:
        application = _timed(application, row, seconds)
    return _limited(application, row, most) if most else application


def _in_flight(row: Row) -> Callable[[], int]:
    """A function that counts the requests in flight, the one that asks included."""
    accelerated = accelerator.row(row)
    if accelerated is not None:
        return cast("Callable[[], int]", accelerated.in_flight)
    free, cells = row.free, row.cells
    return lambda: REQUESTS - len(free) + int(cells[OVERFLOW])


def _limited(application: Callable[..., Any], row: Row, most: int) -> Callable[..., Any]:
    in_flight, cells = _in_flight(row), row.cells

    async def limited(scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "http" and in_flight() > most:
            cells[REJECTED] += 1.0
            await _answer(send, 503, _FULL, (b"retry-after", _RETRY_AFTER))
            return
        await application(scope, receive, send)

    return limited


def _limited_wsgi(application: Callable[..., Any], row: Row, most: int) -> Callable[..., Any]:
    in_flight, cells = _in_flight(row), row.cells

    def limited(environ: Any, start_response: Any) -> Iterable[bytes]:
        if in_flight() > most:
            cells[REJECTED] += 1.0
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(_FULL)))]
            start_response("503 Service Unavailable", [*headers, ("Retry-After", _RETRY_AFTER.decode())])
            return [_FULL]
        answer: Iterable[bytes] = application(environ, start_response)
        return answer

    return limited


def _timed(application: Callable[..., Any], row: Row, seconds: float) -> Callable[..., Any]:
    """Send 504 if the response has not begun at the deadline, else cut the response.

    What the application does after the end of the response (a background task) has no deadline.
    """
    cells = row.cells

    async def timed(scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        begun = ended = False

        async def work(lift: Callable[[], None]) -> None:
            async def sending(message: Any) -> None:
                nonlocal begun, ended
                begun = True
                await send(message)
                if _ends(message):
                    ended = True
                    lift()

            await application(scope, receive, sending)

        if await _within(work, seconds) or ended:
            return
        cells[TIMED_OUT] += 1.0
        if begun:
            raise RequestTimeoutError(f"{scope['method']} took over {seconds:g} s; its response is cut")
        await _answer(send, 504, LATE)

    return timed


def _ends(message: Any) -> bool:
    """Whether it is a response's last message; False for one that breaks the specification."""
    try:
        return message["type"] in _BODIES and not message.get("more_body")
    except Exception:
        return False


async def _within(work: Callable[[Callable[[], None]], Awaitable[None]], seconds: float) -> bool:
    """Run `work`, on asyncio's or trio's running loop; False if it was cancelled at the deadline.

    `work` gets a function that lifts the deadline.
    """
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        with trio.move_on_after(seconds) as scope:
            await work(lambda: setattr(scope, "deadline", math.inf))
        return not scope.cancelled_caught
    import asyncio

    deadline = asyncio.timeout(seconds)

    def lift() -> None:
        if not deadline.expired():
            deadline.reschedule(None)

    try:
        async with deadline:
            await work(lift)
    except TimeoutError:
        if not deadline.expired():
            raise  # the application's own TimeoutError
        return False
    return True


async def _answer(send: Send, status: int, body: bytes, *more: tuple[bytes, bytes]) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", length), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
