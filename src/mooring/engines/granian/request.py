"""A request for a WSGI application, as granian's ASGI worker gives it: threads, environ, body, answer.

Granian's own WSGI worker has lost what an application relies on before it calls: a header's value with a byte
beyond ASCII is empty, X_Forwarded_For has become X-Forwarded-For, the path is decoded. Its ASGI worker gives
the bytes, and calls in the same pool of threads; so the application runs in these. One thread more than the
application may have is granian's: there it tells of the parts of a body, and of clients that have left.
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
from mooring.engines.common.refusal import FIELDS, LARGE, MALFORMED, TIME, Answer
from mooring.engines.granian.input import BodyError
from mooring.instrument.request_exit import traced
from mooring.scoreboard import accelerator
from mooring.system.unpatched import native

_PROTOCOLS = {"1": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2"}
# CGI's names; of several headers the first counts.
_ONCE = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
_KEPT = 1 << 20  # bytes of a body that is not read, kept while its answer is streamed
_GATHERED = 1 << 16  # bytes of a body that is read before a thread has the request

_REFUSED = "the client did not send the request's body in time, or it is too large"

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


class ParkedError(Exception):
    """Raised where a request is to wait for its body, not in a thread."""


class Rules:
    """What the scheduler needs of the worker: its limits, and whom to tell of what is refused."""

    def __init__(self, serving: Serving) -> None:
        settings = serving.plan.settings
        self.fields, self.most = settings.max_fields, settings.max_body
        self.refused, self.moved = serving.refused, serving.moved
        self.connections = Connections(serving.doors.names)
        self.waiting = deque[Any]()  # requests for which there is no thread yet
        self.sendings = set[Sending]()
        self.parking = Parking(self, serving.plan.engine_threads)


class Parked:
    """A request whose body is gathered: in granian's stead of a watcher, to the scheduler."""

    __slots__ = ("body", "proto", "scope", "watcher")

    def __init__(self, watcher: Any, body: Body) -> None:
        self.watcher, self.proto, self.scope, self.body = watcher, watcher.proto, watcher.scope, body

    def err(self, error: BaseException) -> None:
        """Have granian log it, and answer."""
        self.watcher.err(error)


class Parking:
    """Where requests wait for their bodies once half of the threads have one that is not whole.

    So clients that promise bodies and send none do not hold every thread. A body of which more than
    _GATHERED bytes come waits for a place among that half. And a connection of HTTP/2 has three quarters of
    the threads at most: its client may take nothing of all its answers.
    """

    def __init__(self, rules: Rules, threads: int) -> None:
        self._rules, self._most, self._share = (
            rules,
            max(1, threads // 2),
            max(1, threads - (threads + 3) // 4),
        )
        self._lock = native("_thread", "allocate_lock")()
        self._start = native("_thread", "start_new_thread")
        self._ready: dict[Any, Parked] = {}  # by granian's protocol object: on their way to a thread
        self._full = deque[Parked]()  # with their whole body, or as much as is gathered
        self.parked: dict[Parked, None] = {}
        self.served = set[Body]()  # those of the requests that have a thread; the scheduler removes them
        self.schedule: Callable[[Any], object] = lambda _watcher: None

    def crowded(self) -> bool:
        """Whether half of the threads have a body that is not whole."""
        served = self.served
        return len(served) >= self._most and sum(not each.ended for each in list(served)) >= self._most

    def holds(self, scope: Any) -> bool:
        """Whether this connection has as many of the threads as one may have, in HTTP/2."""
        if scope["http_version"] != "2" or len(self.served) < self._share:
            return False
        client = scope["client"]
        return len([each for each in list(self.served) if each.scope["client"] == client]) >= self._share

    def body_of(self, proto: Any, scope: Any) -> Body:
        """The body of a request. Raises ParkedError where it is to be gathered."""
        if self._ready:
            parked = self._ready.pop(proto, None)
            if parked is not None:
                return parked.body
        body = Body(proto, self._rules.moved, self._rules, scope)
        with self._lock:
            if self.crowded() or self.holds(scope):
                raise ParkedError(body)
            self.served.add(body)
        return body

    def park(self, watcher: Any, body: Body) -> None:
        """Gather a request's body, and have it served then."""
        parked = Parked(watcher, body)
        self.parked[parked] = None
        body.gather(_GATHERED, lambda: self._gathered(parked))

    def _gathered(self, parked: Parked) -> None:
        body = parked.body
        if body.refused or body.broken:
            self.parked.pop(parked, None)
        else:
            self._full.append(parked)
            self.look()

    def look(self) -> None:
        """Serve what has a place by now. Called where a body or an answer ends, and by the watch."""
        found = []
        with self._lock:
            for parked in list(self._full):
                if (parked.body.ended or not self.crowded()) and not self.holds(parked.scope):
                    found.append(parked)
                    self._full.remove(parked)
                    self.parked.pop(parked, None)
                    self.served.add(parked.body)
                    self._ready[parked.proto] = parked
        for parked in found:
            self._start(self.schedule, (parked,))


def scheduler(handle: Handle, threads: int, rules: Rules) -> Any:
    """The function that granian calls for each request, in one of its threads, with what it calls a watcher.

    At most `threads` requests are in `handle` at once; others wait, but not in a thread. It never raises,
    since granian does not look.
    """
    body_of = rules.parking.body_of

    def stream(exchange: Any, status: int, headers: Any, chunks: Iterator[bytes]) -> None:
        _stream(exchange, status, headers, chunks, rules.connections, rules.sendings)

    def failed(watcher: Any, error: BaseException) -> None:
        _failed(watcher, error, rules)

    if accelerator.c is None:
        rules.parking.schedule = _scheduler(handle, threads, rules, body_of, stream, failed)
    else:
        rules.parking.schedule = accelerator.c.Requests(
            handle=handle,
            threads=threads,
            waiting=rules.waiting,
            fields=rules.fields,
            environ_of=lambda scope: environ_of(scope, rules.fields),
            served=rules.parking.served,
            parked=rules.parking.parked,
            look=rules.parking.look,
            body_of=body_of,
            stream=stream,
            encode=encoded,
            failed=failed,
        )
    return rules.parking.schedule


def _scheduler(  # noqa: PLR0917
    handle: Handle,
    threads: int,
    rules: Rules,
    body_of: Callable[[Any, Any], Body],
    stream: Callable[..., None],
    failed: Callable[[Any, BaseException], None],
) -> Callable[[Any], None]:
    waiting, lock = rules.waiting, native("_thread", "allocate_lock")()
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
                environ["wsgi.input"] = body = body_of(watcher.proto, watcher.scope)
            handle(Exchange(watcher.proto, body, watcher.scope, stream), environ)
        except BaseException as error:
            failed(watcher, error)
        finally:
            rules.parking.served.discard(body)
            if body is not None and rules.parking.parked:
                rules.parking.look()

    return schedule


def _failed(watcher: Any, error: BaseException, rules: Rules) -> None:
    """Have granian log the error, and answer with 500 where nothing was sent; refuse or park the request.

    What a client does to its request's body is no failure of the application: there is no traceback.
    """
    with contextlib.suppress(BaseException):
        if isinstance(error, ParkedError):
            rules.parking.park(watcher, *error.args)
            return
        if isinstance(error, BodyError) and str(error) == _REFUSED:
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


def waited(awaitable: Any) -> Any:
    """The result of one of granian's awaitables; this thread waits for it."""
    if not hasattr(awaitable, "add_done_callback"):  # its result is there
        try:
            next(awaitable)
        except StopIteration as stop:
            return stop.value
        return None
    gate = Gate()
    awaitable.add_done_callback(lambda _: gate.open())
    gate.wait()
    return awaitable.result()


class Gate:
    """What a thread waits at, until another one opens it; opening it again does nothing."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = native("_thread", "allocate_lock")()
        self._lock.acquire()

    def wait(self) -> None:
        """Wait until it is open."""
        self._lock.acquire()

    def open(self) -> None:
        """Open it; any thread may do so."""
        with contextlib.suppress(RuntimeError):
            self._lock.release()


class Body:
    """A request's body, read as it comes. Not for what PEP 3333 asks of `wsgi.input`: input.py.

    `waiting`, `received`, `client`, `multiplexed` and `refused` are for the watch: engines/common/watch.py.
    """

    __slots__ = (
        "_buffer",
        "_gate",
        "_gathered",
        "_moved",
        "_pending",
        "_proto",
        "_rules",
        "broken",
        "ended",
        "received",
        "refused",
        "scope",
        "waiting",
    )

    def __init__(
        self, proto: Any, moved: Callable[[], None], rules: Rules | None = None, scope: Any = None
    ) -> None:
        self._proto, self._moved, self._rules, self.scope = proto, moved, rules, scope
        self._gate: Gate | None = None
        self._gathered: Callable[[], object] | None = None
        self.waiting = self.refused = False
        self.received = 0
        self._buffer = bytearray()
        self._pending: Any = None
        self.ended = False  # no part comes after those in the buffer
        self.broken = False  # the client has left

    @property
    def client(self) -> tuple[str, int]:
        """Whose it is."""
        return peer_of(self.scope)

    @property
    def multiplexed(self) -> bool:
        """Whether its connection has other requests too."""
        return bool(self.scope["http_version"] == "2")

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer at the end."""
        while len(self._buffer) < size and not self.ended:
            self._take()
        return self._cut(size)

    def readline(self) -> bytes:
        """The bytes before the next newline, or all that are left."""
        searched = 0
        while (at := self._buffer.find(b"\n", searched)) < 0 and not self.ended:
            searched = len(self._buffer)
            self._take()
        return self._cut(at if at >= 0 else len(self._buffer))

    def left(self) -> bool:
        """Whether the client is known to have left. What it sends meanwhile is kept, up to a limit."""
        while not self.broken:
            if self._pending is None:
                if len(self._buffer) >= _KEPT:
                    return False
                self._pending = self._proto.receive()
            done = getattr(self._pending, "done", None)
            if done is not None and not done():
                return False
            self._take()
        return True

    def _take(self) -> None:
        if self.refused:
            raise BodyError(_REFUSED)
        pending, self._pending = self._pending, None
        message = self._wait(self._proto.receive() if pending is None else pending)
        if message["type"] == "http.disconnect":
            self.broken = self.ended = True
            return
        self._buffer += message["body"]
        self.received += len(message["body"])
        if self._rules is not None and self._rules.most and self.received > self._rules.most:
            self._rules.refused("body_size", self.client, "")
            self._refuse(LARGE)
        self._moved()
        if not message["more_body"]:
            self.end()

    def end(self) -> None:
        """Note that all of it is there, which granian may say with a part of its own, later."""
        if self.ended:
            return
        self.ended = True
        if self._rules is not None and self._rules.parking.parked:
            self._rules.parking.look()

    def gather(self, most: int, then: Callable[[], object]) -> None:
        """Read up to the end, or to so many bytes, and call `then`: in one of granian's threads."""
        with contextlib.suppress(ConnectionResetError):
            while not self.ended and not self.refused and len(self._buffer) < most:
                pending = self._proto.receive()
                if hasattr(pending, "add_done_callback"):
                    self._pending, self._gathered, self.waiting = pending, then, True
                    pending.add_done_callback(lambda _: self._came(most, then))
                    return
                self._pending = pending
                self._take()
        then()

    def _came(self, most: int, then: Callable[[], object]) -> None:
        self.waiting, self._gathered = False, None
        if self.refused:
            return
        with contextlib.suppress(ConnectionResetError):
            self._take()
        self.gather(most, then)

    def refuse(self) -> None:
        """See engines/common/watch.py. The thread that waits answers."""
        gate, self.refused = self._gate, True
        gathered = self._gathered
        if gathered is not None:
            self._pending.cancel()
            with contextlib.suppress(ConnectionResetError):
                self._refuse(TIME)
            gathered()
        if gate is not None:
            gate.open()

    def _wait(self, awaitable: Any) -> Any:
        if not hasattr(awaitable, "add_done_callback"):
            return waited(awaitable)
        gate = self._gate = Gate()
        self.waiting = True
        awaitable.add_done_callback(lambda _: gate.open())
        gate.wait()
        self.waiting, self._gate = False, None
        if self.refused:
            awaitable.cancel()
            self._refuse(TIME)
        return awaitable.result()

    def _refuse(self, refusal: Answer) -> None:
        """Answer, where nothing was sent yet; whatever the application sends after that is dropped."""
        self.refused = self.ended = True
        with contextlib.suppress(Exception):
            for message in refusal.messages(unended=not self.scope["client"][0]):  # see upload.py
                self._proto.send(message)
        raise BodyError(_REFUSED)

    def _cut(self, size: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return data


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


def _stream(  # noqa: PLR0917
    exchange: Any,
    status: int,
    headers: Any,
    chunks: Iterator[bytes],
    connections: Connections,
    sendings: set[Sending],
) -> None:
    proto = exchange.proto
    body = exchange.body or Body(proto, lambda: None)
    if body.refused:
        chunks.close()  # type: ignore[attr-defined]
        return
    client, fd, begun = peer_of(exchange.scope), None, False
    sending = Sending(proto, client)
    if exchange.scope["http_version"] == "2":
        sendings.add(sending)
    if exchange.body is not None and not body.ended:
        fd = connections.peers().get(client)
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
            cut(exchange.scope, connections)
        raise
    finally:
        sendings.discard(sending)
        chunks.close()  # type: ignore[attr-defined]  # a generator: response.py
    proto.send({"type": "http.response.body", "body": b""})


def peer_of(scope: dict[str, Any]) -> tuple[str, int]:
    """The client's address and port; of a unix socket they are empty."""
    return scope["client"][0], int(scope["client"][1])


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
