"""One ASGI request on granian, with its scope and its messages corrected.

Where granian 2.8 differs from the ASGI specification or from the other engines: ports in `client` and
`server` are text, a unix peer is `("", "0")` instead of None, HTTP/1.0 is `"1"`, a missing Host is an
empty one, a response start without `headers` is an error, `receive()` and `send()` are no coroutines, and
over HTTP/2 the response to a HEAD has the application's body.
https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from mooring.engines.common.max_body import is_larger
from mooring.engines.common.refusal import FIELDS, LARGE, MALFORMED, Answer
from mooring.engines.granian.upload import Sending, Upload
from mooring.engines.granian.websocket import ClientLeftError, Live, WebSocket
from mooring.instrument import drain
from mooring.instrument.request_exit import traced
from mooring.instrument.request_id import is_named

_HOST = b"host"
_NO_HOST = (b"host", b"")
_LENGTH, _CODING = b"content-length", b"transfer-encoding"
_BODY = (_LENGTH, _CODING)  # RFC 9112, 6: a request with neither has no body
_NO_BODY = (b"content-length", b"0")

Call = Callable[..., Awaitable[None]]


def mend(scope: dict[str, Any], unix: str | None) -> None:
    """Correct granian's scope to the specification; `unix` is the path of a unix listener."""
    if unix is None:
        host, port = scope["client"]
        scope["client"] = (host, int(port))
        host, port = scope["server"]
        scope["server"] = (host, int(port))
    else:
        scope["client"] = None
        scope["server"] = (unix, None)
    if scope["http_version"] == "1":
        scope["http_version"] = "1.0"
    headers = scope["headers"]
    if headers and headers[0] == _NO_HOST:
        del headers[0]
    scope["root_path"] = ""  # the instrumentation sets it


def handler(call: Call, live: Live, state: dict[str, Any], unix: str | None) -> Call:
    """The coroutine function that granian schedules for each request: it takes granian's watcher."""

    async def handle(watcher: Any) -> None:
        try:
            scope = watcher.scope
            mend(scope, unix)
            live.flying[watcher] = client = scope["client"]
            if live.answered is not None:
                live.answered.add(client)
            scope["state"] = state.copy()
            if scope["http_version"] == "2":
                live.multiplexed.add(client)
                if live.gate is not None:
                    live.gate.multiplexed = True
            if scope["type"] == "http":
                await _http(call, live, scope, watcher.proto)
            else:
                await _websocket(call, live, scope, watcher.proto)
        except asyncio.CancelledError:
            watcher.done()
            raise
        except BaseException as error:
            watcher.err(traced(error))
        else:
            watcher.done()
        finally:
            live.flying.pop(watcher, None)

    return handle


async def _http(call: Call, live: Live, scope: dict[str, Any], proto: Any) -> None:
    names = [name for name, _ in scope["headers"]]
    refusal = _refusal(scope, names, live)
    if refusal is not None:
        for message in refusal.messages():
            await proto.send(message)
        return
    if _LENGTH in names or _CODING in names or scope["http_version"] == "2":
        await _watched(call, live, scope, proto)
    else:
        await call(scope, *_channels(scope, proto))


def _channels(scope: dict[str, Any], proto: Any) -> tuple[Call, Call]:
    """`receive` and `send` of a request without a body, of which nothing is to be watched.

    granian's own return what `asyncio.create_task` does not take.
    """

    async def receive() -> Any:
        return await proto.receive()

    async def send(message: dict[str, Any]) -> None:
        # what is no dictionary, or has no type, granian judges
        if (
            isinstance(message, dict)
            and "headers" not in message
            and message.get("type") == "http.response.start"
        ):
            message = {**message, "headers": ()}
        await proto.send(message)

    if scope["method"] != "HEAD":
        return receive, send

    async def send_head(message: dict[str, Any]) -> None:
        await send({**message, "body": b""} if _type(message) == "http.response.body" else message)

    return receive, send_head


async def _watched(call: Call, live: Live, scope: dict[str, Any], proto: Any) -> None:  # noqa: C901
    """Serve a request with a body, or over HTTP/2."""
    ended, upload = False, None

    async def receive() -> Any:
        nonlocal ended, upload
        if ended:
            return await proto.receive()
        if upload is None:
            upload = Upload(proto, scope, live)
            upload.begun = begun
            live.uploads.add(upload)
        try:
            message = await upload.receive()
        finally:
            ended = upload.ended
            if ended and not upload.refused:
                live.uploads.discard(upload)
        return message

    begun = False
    put = proto.send if scope["http_version"] != "2" else Sending(proto, scope["client"], live).send

    async def send(message: dict[str, Any]) -> None:
        nonlocal begun
        if upload is not None:
            if upload.refused:
                return
            upload.begun = True
        begun = True
        if _type(message) == "http.response.start":
            if not ended and _has_body(scope):
                message = _last_of_connection(message)
            elif "headers" not in message:
                message = {**message, "headers": ()}
        await put(message)

    async def send_head(message: dict[str, Any]) -> None:
        await send({**message, "body": b""} if _type(message) == "http.response.body" else message)

    try:
        await call(scope, receive, send_head if scope["method"] == "HEAD" else send)
    except ClientLeftError:
        pass
    finally:
        if upload is not None:
            live.uploads.discard(upload)


def _refusal(scope: dict[str, Any], names: list[bytes], live: Live) -> Answer | None:
    """The answer to a request that the application does not get; `names` are its headers'."""
    if len(names) > live.max_fields:
        reason, answer = "head_fields", FIELDS
    elif names.count(_HOST) > 1 and scope["http_version"] != "2":
        reason, answer = "malformed", MALFORMED
    elif live.max_body and any(is_larger(each, live.max_body) for each in scope["headers"]):
        reason, answer = "body_size", LARGE
    else:
        return None
    live.refused(reason, scope["client"], "two Hosts" if answer is MALFORMED else "")
    return answer


def _type(message: Any) -> object:
    """A message's type; None for what has none: granian judges that."""
    try:
        return message["type"]
    except Exception:
        return None


def _has_body(scope: dict[str, Any]) -> bool:
    """Whether the request has a body that ends the connection if it is not read; in HTTP/2 none does."""
    if scope["http_version"] == "2":
        return False
    return any(header[0] in _BODY and header != _NO_BODY for header in scope["headers"])


def _last_of_connection(message: dict[str, Any]) -> dict[str, Any]:
    """The start of a response, with `Connection: close`, to a request whose body was not read.

    Granian closes that connection, but does not always send the header: the client's next request would fail.
    """
    own = [header for header in message.get("headers") or () if not is_named(header, b"connection")]
    return {**message, "headers": [*own, drain.CLOSE]}


async def _websocket(call: Call, live: Live, scope: dict[str, Any], proto: Any) -> None:
    connection = WebSocket(proto, scope["client"], live)
    live.websockets.add(connection)
    try:
        with contextlib.suppress(ClientLeftError):
            await call(scope, connection.receive, connection.send)
    finally:
        live.websockets.discard(connection)
