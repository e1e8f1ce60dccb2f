"""A request for a WSGI application, as granian's ASGI worker gives it: threads, environ, answer.

Granian's own WSGI worker has lost what an application relies on before it calls: a header's value with a byte
beyond ASCII is empty, X_Forwarded_For has become X-Forwarded-For, the path is decoded. Its ASGI worker gives
the bytes, and calls in the same pool of threads; so the application runs in these. One thread more than the
application may have is granian's: there it tells of the parts of a body, and of clients that have left.
Bodies, and where requests wait for them: bodies.py.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from mooring.engines import Serving
from mooring.engines.common.connections import Connections, borrow, is_open
from mooring.engines.common.refusal import FIELDS, MALFORMED, Answer
from mooring.engines.granian.bodies import Body, Gate, ParkedError, Parking, RefusedBodyError, peer_of
from mooring.engines.granian.input import BodyError
from mooring.instrument.request_exit import traced
from mooring.scoreboard import accelerator
from mooring.system.unpatched import native

_PROTOCOLS = {"1": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2"}
# CGI's names; of several headers the first counts.
_ONCE = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}

Environ = dict[str, Any]
Handle = Callable[[Any, Environ], None]


class Loop:
    """What granian calls of an event loop: a callback runs at once, in granian's thread."""

    def call_soon(self, callback: Callable[..., object], *given: Any, context: Any = None) -> None:
        """Call it now; `context` would be asyncio's."""
        callback(*given)

    call_soon_threadsafe = call_soon


class RefusedError(Exception):
    """A request that the application does not get, or not further; `reason` is for the count."""

    def __init__(self, refusal: Answer, reason: str, detail: str = "") -> None:
        super().__init__(detail or refusal.phrase)
        self.refusal, self.reason, self.detail = refusal, reason, detail


class Rules:
    """What the scheduler needs of the worker: its limits, and whom to tell of what is refused."""

    def __init__(self, serving: Serving) -> None:
        settings = serving.plan.settings
        self.fields, self.refused = settings.max_fields, serving.refused
        self.connections = Connections(serving.doors.names)
        self.waiting = deque[Any]()  # requests for which there is no thread yet
        self.sendings = set[Sending]()
        self.parking = Parking(serving.plan.engine_threads, settings.max_body, serving.refused, serving.moved)


def scheduler(handle: Handle, threads: int, rules: Rules) -> Any:
    """The function that granian calls for each request, in one of its threads, with what it calls a watcher.

    At most `threads` requests are in `handle` at once; others wait, but not in a thread. It never raises,
    since granian does not look.
    """
    parking = rules.parking

    def stream(exchange: Any, status: int, headers: Any, chunks: Iterator[bytes]) -> None:
        _stream(exchange, status, headers, chunks, rules)

    def failed(watcher: Any, error: BaseException) -> None:
        _failed(watcher, error, rules)

    if accelerator.c is None:
        parking.schedule = _scheduler(handle, threads, rules, stream, failed)
    else:
        parking.schedule = accelerator.c.Requests(
            handle=handle,
            threads=threads,
            waiting=rules.waiting,
            fields=rules.fields,
            environ_of=lambda scope: environ_of(scope, rules.fields),
            served=parking.served,
            parked=parking.parked,
            look=parking.look,
            body_of=parking.body_of,
            stream=stream,
            encode=encoded,
            failed=failed,
        )
    return parking.schedule


def _scheduler(
    handle: Handle,
    threads: int,
    rules: Rules,
    stream: Callable[..., None],
    failed: Callable[[Any, BaseException], None],
) -> Callable[[Any], None]:
    waiting, parking, lock = rules.waiting, rules.parking, native("_thread", "allocate_lock")()
    active = 0

    def schedule(watcher: Any) -> None:
        nonlocal active
        with lock:
            if active >= threads:
                waiting.append(watcher)
                return
            active += 1
        while watcher is not None:
            serve(watcher)
            with lock:
                watcher = waiting.popleft() if waiting else None
                active -= watcher is None

    def serve(watcher: Any) -> None:
        body = None
        try:
            environ = environ_of(watcher.scope, rules.fields)
            if has_body(environ):
                environ["wsgi.input"] = body = parking.body_of(watcher.proto, watcher.scope)
            handle(Exchange(watcher.proto, body, watcher.scope, stream), environ)
        except BaseException as error:
            failed(watcher, error)
        finally:
            parking.served.discard(body)
            if body is not None and parking.parked:
                parking.look()

    return schedule


def _failed(watcher: Any, error: BaseException, rules: Rules) -> None:
    """Have granian log the error, and answer with 500 where nothing was sent; refuse or park the request.

    What a client does to its request's body is no failure of the application: there is no traceback.
    """
    with contextlib.suppress(BaseException):
        if isinstance(error, ParkedError):
            rules.parking.park(watcher, *error.args)
            return
        if isinstance(error, RefusedBodyError):
            return  # it was answered
        if isinstance(error, BodyError):
            with contextlib.suppress(Exception):  # an answer has begun
                for message in MALFORMED.messages():
                    watcher.proto.send(message)
                return
        if not isinstance(error, RefusedError):
            watcher.err(traced(error))
            return
        rules.refused(error.reason, watcher.scope["client"], error.detail)
        for message in error.refusal.messages():
            watcher.proto.send(message)


def environ_of(scope: dict[str, Any], fields: int = 1000) -> Environ:
    """The environ that a scope of granian's means, without what is the same for all requests.

    Raises RefusedError for more header fields than that, and for two Hosts.
    A name with an underscore would become another header's key: it is dropped, as other servers do.
    """
    raw, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    client, server = scope["client"], scope["server"]  # of a unix socket: no host, and port 0
    environ = {
        "SERVER_PROTOCOL": _PROTOCOLS.get(scope["http_version"], "HTTP/1.0"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": server[1],
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": client[1],
        "REQUEST_METHOD": scope["method"],
        "RAW_URI": f"{raw}?{query}" if query else raw,
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": query,
        "wsgi.url_scheme": scope["scheme"],
    }
    if len(scope["headers"]) > fields:
        raise RefusedError(FIELDS, "head_fields")
    for name, value in scope["headers"]:
        key = key_of(name)
        if key is None:
            continue
        text = value.decode("latin-1")
        if key not in environ:
            environ[key] = text
        elif key == "HTTP_HOST" and scope["http_version"] != "2":
            raise RefusedError(MALFORMED, "malformed", "two Hosts")
        elif key.startswith("HTTP_"):  # cookies cannot be joined by commas: RFC 9113, 8.2.3
            environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + text
    return environ


def key_of(name: bytes) -> str | None:
    """The environ's key of a header's name, which is in lower case; None: the header is dropped."""
    if b"_" in name:
        return None
    return _ONCE.get(name) or "HTTP_" + name.decode("latin-1").replace("-", "_").upper()


def has_body(environ: Environ) -> bool:
    """Whether the request may have a body."""
    return (
        "CONTENT_LENGTH" in environ
        or "HTTP_TRANSFER_ENCODING" in environ
        or environ["SERVER_PROTOCOL"] == "HTTP/2"
    )


def encoded(headers: Any) -> list[tuple[bytes, bytes]]:
    """Headers of a response in the bytes that PEP 3333 means. Raises ValueError for what is no such text."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class Exchange:
    """Where a request's answer goes. `body` is None where the request has none."""

    __slots__ = ("_stream", "body", "proto", "scope")

    def __init__(self, proto: Any, body: Body | None, scope: dict[str, Any], stream: Any) -> None:
        self.proto, self.body, self.scope, self._stream = proto, body, scope, stream

    def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
        """Send a complete response."""
        if self.body is not None and self.body.refused:
            return
        self.proto.send({"type": "http.response.start", "status": status, "headers": encoded(headers)})
        self.proto.send({"type": "http.response.body", "body": body})

    def response_iter(self, status: int, headers: Any, chunks: Iterator[bytes]) -> None:
        """Send a response of chunks, as they come, until the client has left."""
        self._stream(self, status, headers, chunks)


class Sending:
    """An answer over HTTP/2 of which a part may wait for the client's window: see engines/common/watch.py."""

    __slots__ = ("_gate", "_proto", "_sent", "client", "given_up")

    def __init__(self, proto: Any, client: tuple[str, int]) -> None:
        self._proto, self.client = proto, client
        self._sent, self.given_up = 0, False
        self._gate: Gate | None = None

    @property
    def parts(self) -> int:
        """How many were sent; below 0: none waits."""
        return -1 if self._gate is None else self._sent

    def send(self, message: dict[str, Any]) -> None:
        """Send a part, and wait until granian takes more."""
        sent = self._proto.send(message)
        self._sent += 1
        if hasattr(sent, "add_done_callback"):
            gate = self._gate = Gate()
            sent.add_done_callback(lambda _: gate.open())
            gate.wait()
            self._gate = None

    def give_up(self) -> None:
        """See engines/common/watch.py."""
        gate, self.given_up = self._gate, True
        if gate is not None:
            gate.open()


def _stream(exchange: Any, status: int, headers: Any, chunks: Iterator[bytes], rules: Rules) -> None:
    proto = exchange.proto
    body = exchange.body or Body(proto, lambda: None)
    if body.refused:
        chunks.close()  # type: ignore[attr-defined]
        return
    client, fd, begun = peer_of(exchange.scope), None, False
    sending = Sending(proto, client)
    if exchange.scope["http_version"] == "2":
        rules.sendings.add(sending)
    if exchange.body is not None and not body.ended:
        fd = rules.connections.peers().get(client)
    try:
        proto.send({"type": "http.response.start", "status": status, "headers": encoded(headers)})
        for chunk in chunks:
            if chunk:
                sending.send({"type": "http.response.body", "body": chunk, "more_body": True})
                begun = True
            if sending.given_up or body.left() or (fd is not None and not is_open(fd, client)):
                return
    except BaseException:
        if begun:  # before, granian can still answer with 500
            cut(exchange.scope, rules.connections)
        raise
    finally:
        rules.sendings.discard(sending)
        chunks.close()  # type: ignore[attr-defined]  # a generator: response.py
    proto.send({"type": "http.response.body", "body": b""})


def cut(scope: dict[str, Any], connections: Connections) -> None:
    """End the connection: so the client sees that the response is not whole.

    Not in HTTP/2, where others use it too, and not on a unix socket, where it cannot be told from others.
    """
    if scope["http_version"] == "2":
        return
    with contextlib.suppress(OSError, ValueError):
        client = peer_of(scope)
        kept = borrow(connections.peers().get(client, -1), client)
        if kept is not None:
            with kept:
                kept.shutdown(socket.SHUT_RDWR)
