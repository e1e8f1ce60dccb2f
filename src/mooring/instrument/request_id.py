"""The ids of a request: the request id's header and W3C trace context, for application, response and log.

Ids from a trusted peer are kept if they are usable. All others are replaced, so that the application sees one
of each, the same as in the log. forwarded_allow_ips says which peers are trusted. The peer's own address is
checked: call the identifiers before proxy.py's functions replace it.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mooring.application.model import Environ, Message, Scope

if TYPE_CHECKING:
    from mooring.settings.trusted import Trusted

# Request id, trace id (32 hex digits), headers for the response; an id of `-` means none.
AsgiIds = tuple[str, str, list[tuple[bytes, bytes]]]
WsgiIds = tuple[str, str, list[tuple[str, str]]]
AsgiIdentifier = Callable[[Scope], AsgiIds]
WsgiIdentifier = Callable[[Environ], WsgiIds]

# Only characters that need no escape in a log, in JSON, in a shell or in a header's list.
_USABLE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may have more after another dash.
_TRACEPARENT = re.compile(
    r"(?:00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"|(?!00|ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?)"
)
_PAIRS = tuple(f"{n:02x}" for n in range(256))


def asgi_identifier(
    header: str | None, trace: bool, trusted: Trusted, *, unix: bool
) -> AsgiIdentifier | None:
    """A function that finds or makes a scope's ids and puts them into its headers; None if both are off.

    `header` is the name of the request id's header, in lower case, or None; `trace` turns trace context on.
    `unix`: as for asgi_proxy.
    """
    believes, nameless = trusted.believes, trusted.everyone or (trusted.unix and unix)

    def believed(scope: Scope) -> bool:
        client = scope.get("client")
        return believes(client[0]) if client and client[0] else nameless

    named = _asgi_request_id(header.encode(), believed) if header else None
    if not trace:
        return named
    traced = _asgi_trace(believed)

    def both(scope: Scope) -> AsgiIds:
        trace_id, context = traced(scope)
        if named is None:
            return "-", trace_id, [context]
        request_id, _, answer = named(scope)
        answer.append(context)
        return request_id, trace_id, answer

    return both


def wsgi_identifier(
    header: str | None, trace: bool, trusted: Trusted, *, unix: bool
) -> WsgiIdentifier | None:
    """As `asgi_identifier`, for an environ."""
    if not header and not trace:
        return None
    believes, nameless = trusted.believes, trusted.everyone or (trusted.unix and unix)
    key = f"HTTP_{header.upper().replace('-', '_')}" if header else ""
    name = header or ""
    usable, fresh, fresh_trace = _USABLE.fullmatch, _ids(), _traceparents()

    def identify(environ: Environ) -> WsgiIds:
        request_id, trace_id, answer = "-", "-", []
        if key:
            given = environ.get(key)
            if given is not None and usable(given) and _peer(environ, believes, nameless):
                request_id = given
            else:
                environ[key] = request_id = fresh()
            answer.append((name, request_id))
        if trace:
            context: str = environ.get("HTTP_TRACEPARENT", "")
            if not (_TRACEPARENT.fullmatch(context) and _peer(environ, believes, nameless)):
                environ["HTTP_TRACEPARENT"] = context = fresh_trace()
                environ.pop("HTTP_TRACESTATE", None)
            trace_id = context[3:35]
            answer.append(("traceresponse", context))
        return request_id, trace_id, answer

    return identify


def with_headers(message: Message, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """A copy of a response's first message, with those of `headers` that the application has not set itself.

    A copy, since an application may send the same message or the same list again and again.
    """
    own = [*(message.get("headers") or ())]  # it may be an iterator, which can be read once
    added = headers
    for wanted, _ in headers:
        size = len(wanted)
        try:
            for name, _ in own:
                if len(name) == size and name.lower() == wanted:
                    added = [header for header in added if header[0] != wanted]
                    break
        except Exception:  # an invalid header: the engine decides what to do with it
            if any(is_named(header, wanted) for header in own):
                added = [header for header in added if header[0] != wanted]
    answer: dict[str, Any] = message.copy() if message.__class__ is dict else dict(message)
    own += added
    answer["headers"] = own
    return answer


def is_named(header: Any, wanted: bytes) -> bool:
    """Whether a response's header has that name, which is in lower case. False for an invalid header."""
    try:
        return bool(header[0].lower() == wanted)
    except Exception:
        return False


def _peer(environ: Environ, believes: Callable[[str], bool], nameless: bool) -> bool:
    peer = environ.get("REMOTE_ADDR")
    return believes(peer) if peer else nameless


def _asgi_request_id(wanted: bytes, believed: Callable[[Any], bool]) -> AsgiIdentifier:
    usable, fresh = _USABLE.fullmatch, _ids()

    def identify(scope: Scope) -> AsgiIds:
        given = None
        for name, value in scope["headers"]:
            if name == wanted:
                given = value if given is None else b""  # two of them: use neither
        if given is None:
            request_id = fresh()
            pair = (wanted, request_id.encode())
            try:
                scope["headers"].append(pair)  # as _append does, without the call
            except AttributeError:
                scope["headers"] = [*scope["headers"], pair]
            return request_id, "-", [pair]
        request_id = given.decode("latin-1")
        if not (usable(request_id) and believed(scope)):
            request_id = fresh()
            given = request_id.encode()
            _replace(scope, (wanted,), (wanted, given))
        return request_id, "-", [(wanted, given)]

    return identify


def _asgi_trace(
    believed: Callable[[Any], bool],
) -> Callable[[Scope], tuple[str, tuple[bytes, bytes]]]:
    fresh = _traceparents()

    def identify(scope: Scope) -> tuple[str, tuple[bytes, bytes]]:
        given, state = None, False
        for name, value in scope["headers"]:
            if name == b"traceparent":
                given = value if given is None else b""
            elif name == b"tracestate":
                state = True
        if (
            given is not None
            and _TRACEPARENT.fullmatch(context := given.decode("latin-1"))
            and believed(scope)
        ):
            return context[3:35], (b"traceresponse", given)
        context = fresh()
        value = context.encode()
        if given is None and not state:
            _append(scope, (b"traceparent", value))
        else:
            _replace(scope, (b"traceparent", b"tracestate"), (b"traceparent", value))
        return context[3:35], (b"traceresponse", value)

    return identify


def _append(scope: Scope, pair: tuple[bytes, bytes]) -> None:
    headers = scope["headers"]
    try:
        headers.append(pair)  # in place: no engine reads the scope's headers again
    except AttributeError:
        scope["headers"] = [*headers, pair]


def _replace(scope: Scope, names: tuple[bytes, ...], pair: tuple[bytes, bytes]) -> None:
    scope["headers"] = [*(header for header in scope["headers"] if header[0] not in names), pair]


def _ids() -> Callable[[], str]:
    """A function that makes ids of 32 hex digits: 30 random ones for 256 ids in a row, and two that count.

    Any thread may call it: the iterator is written in C; two threads that find it empty make a block each.
    """
    block: Iterator[str] = iter(())
    random_bytes, pairs = os.urandom, _PAIRS

    def forget() -> None:
        nonlocal block
        block = iter(())

    def fresh() -> str:
        nonlocal block
        while (made := next(block, None)) is None:
            block = map(random_bytes(15).hex().__add__, pairs)
        return made

    os.register_at_fork(after_in_child=forget)
    return fresh


def _traceparents() -> Callable[[], str]:
    """A function that makes new trace contexts, flagged as sampled: else OpenTelemetry would record nothing.

    All digits are random, since samplers decide by the trace id.
    """
    source = random.Random()  # noqa: S311
    os.register_at_fork(after_in_child=source.seed)
    bits = source.getrandbits

    def fresh() -> str:
        made = f"{bits(192) | 1 << 64 | 1:048x}"  # neither id is all zeros
        return f"00-{made[:32]}-{made[32:]}-01"

    return fresh
