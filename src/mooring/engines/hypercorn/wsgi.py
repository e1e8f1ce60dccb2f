"""hypercorn's WSGI wrapper with its faults corrected. Not for the size of the thread pool.

By itself hypercorn 0.18 sends a 500 for an empty response (a HEAD or 304 from Flask), runs the application
with half a body when the client disconnects, streams on when the client disconnects later, gives SERVER_PORT
as a number, uses stdout as wsgi.errors, has a start_response without exc_info that may be called twice, and
ends the trio worker at once because its lifespan returns.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from hypercorn.app_wrappers import WSGIWrapper

from mooring.engines.common.lifespan import Lifespan
from mooring.instrument import handshake

_log = logging.getLogger("hypercorn.error")


class _DisconnectedError(Exception):
    """The client has disconnected before its request or its response was complete."""


class WsgiApplication:
    """The application for hypercorn. `abandon` changes how threads are run, so that a stop does not wait."""

    def __init__(
        self, app: Callable[..., Any], lifespan: Lifespan, max_body: int, abandon: Callable[[Any], Any]
    ) -> None:
        self._wsgi = WSGIWrapper(_completed(app), max_body)
        self._lifespan, self._abandon = lifespan, abandon
        self._told = False  # that there are no WebSockets

    async def __call__(self, scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
        """Handle one request, the lifespan, or a WebSocket (which is refused)."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] == "websocket" and not self._told:
            self._told = True
            _log.warning(handshake.words("hypercorn", scope["path"]))

        # X_Forwarded_For and X-Forwarded-For have one key in an environ: drop names with _, as gunicorn does.
        scope["headers"] = _one_cookie([each for each in scope["headers"] if b"_" not in each[0]])
        stream = getattr(send, "__self__", None)

        async def connected() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _DisconnectedError
            return message

        async def to_client(message: Any) -> None:
            if getattr(stream, "closed", False):
                raise _DisconnectedError
            await send(message)

        run = self._abandon(sync_spawn)

        async def spawn(function: Any, environ: dict[str, Any], *more: Any) -> Any:
            if "raw_path" in scope:
                _add_target(environ, scope)
            return await run(function, environ, *more)

        try:
            await self._wsgi(scope, connected, to_client, spawn, call_soon)
        except _DisconnectedError:
            return


def _one_cookie(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with one cookie: browsers split it over HTTP/2, and hypercorn would join it by commas."""
    cookies = [value for name, value in headers if name == b"cookie"]
    if len(cookies) < 2:
        return headers
    return [*(each for each in headers if each[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]


def _add_target(environ: dict[str, Any], scope: Any) -> None:
    """Add the target as it was sent, and mend the path: hypercorn's has lost bytes that are no UTF-8."""
    environ["RAW_URI"] = _target(scope)  # the instrumentation makes REQUEST_URI of it
    if not scope.get("root_path"):
        environ["PATH_INFO"] = unquote_to_bytes(scope["raw_path"]).decode("latin-1")


def _target(scope: Any) -> str:
    """Path and query as the client sent them; a `?` before an empty query is lost."""
    raw, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return f"{raw}?{query}" if query else raw


def _completed(app: Callable[..., Any]) -> Callable[..., Iterable[bytes]]:
    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["SERVER_PORT"] = str(environ["SERVER_PORT"])
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi.input_terminated"] = True  # else Werkzeug reads nothing of a chunked body
        response = _Response(start_response)
        return _chunks(app(environ, response.start), response)

    return call


class _Response:
    """PEP 3333's start_response. hypercorn's own has no exc_info, and may be called any number of times."""

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self._started = False
        self.sent = False  # whether the head was sent
        self.written: list[bytes] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Begin the response; with `exc_info`, replace its head. If the head was sent, raise that."""
        if exc_info is not None:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
                self.written.clear()  # it was for the head that this one replaces
            finally:
                exc_info = None  # breaks the cycle with this frame
        elif self._started:
            raise AssertionError("start_response was called twice, without exc_info")
        self._start_response(status, headers)
        self._started = True
        return self.written.append


def _chunks(body: Iterable[bytes], response: _Response) -> Iterator[bytes]:
    """The response's body in at least one chunk; data passed to write() comes first.

    hypercorn sends the head with the first chunk. So the first chunk has a byte (PEP 3333), unless the body
    is empty.
    """
    try:
        iterator = iter(body)
        data, ended = b"".join(response.written), False
        while not data and not ended:
            chunk = next(iterator, None)
            ended = chunk is None
            data = b"".join([*response.written, chunk or b""])
        response.sent = True
        yield data
        yield from iterator
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
