"""Bodies of requests for a WSGI application on granian, and where requests wait for them.

The application's thread reads its request's body. A request that waits has no thread: what comes of its body
meanwhile is gathered in granian's.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from mooring.engines.common.refusal import LARGE, TIME, Answer
from mooring.engines.granian.input import BodyError
from mooring.system.unpatched import native

_KEPT = 1 << 20  # bytes of a body that is not read, kept while its answer is streamed
_GATHERED = 1 << 16  # bytes of a body that is read before a thread has the request


class RefusedBodyError(BodyError):
    """The client has its answer already: it was too slow, or the body is too large."""

    def __init__(self) -> None:
        super().__init__("the client did not send the request's body in time, or it is too large")


class ParkedError(Exception):
    """Raised where a request is to wait for its body, not in a thread."""


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

    def __init__(
        self, threads: int, max_body: int, refused: Callable[..., object], moved: Callable[[], object]
    ) -> None:
        """`refused` and `moved`: whom to tell of a body that is too large, and of each part."""
        self.max_body, self.refused, self.moved = max_body, refused, moved
        self._most, self._share = max(1, threads // 2), max(1, threads - (threads + 3) // 4)
        self._lock = native("_thread", "allocate_lock")()
        self._start = native("_thread", "start_new_thread")
        self._ready: dict[Any, Parked] = {}  # by granian's protocol object: on their way to a thread
        self._full: dict[Parked, None] = {}  # with their whole body, or as much as is gathered
        self.parked: dict[Parked, None] = {}
        self.served = set[Body]()  # those of the requests that have a thread; the scheduler removes them
        self.schedule: Callable[[Any], object] = lambda _watcher: None

    def _crowded(self) -> bool:
        """Whether half of the threads have a body that is not whole."""
        served = self.served
        return len(served) >= self._most and sum(not each.ended for each in list(served)) >= self._most

    def _satisfied(self) -> set[Any]:
        """The clients of HTTP/2 whose connection has as many of the threads as one may have."""
        if len(self.served) < self._share:
            return set()
        counts = Counter(each.scope["client"] for each in list(self.served) if each.multiplexed)
        return {client for client, count in counts.items() if count >= self._share}

    def body_of(self, proto: Any, scope: Any) -> Body:
        """The body of a request. Raises ParkedError where it is to be gathered."""
        if self._ready:
            parked = self._ready.pop(proto, None)
            if parked is not None:
                return parked.body
        body = Body(proto, self.moved, self, scope)
        with self._lock:
            if self._crowded() or (body.multiplexed and scope["client"] in self._satisfied()):
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
            self._full[parked] = None
            self.look()

    def look(self) -> None:
        """Serve what has a place by now. Called where a body or an answer ends, and by the watch."""
        with self._lock:
            crowded, satisfied = self._crowded(), self._satisfied()
            for parked in list(self._full):
                body = parked.body
                if crowded and not body.ended:
                    continue
                if body.multiplexed and body.scope["client"] in satisfied:
                    continue
                self.served.add(body)
                self._ready[parked.proto] = parked
                try:
                    self._start(self.schedule, (parked,))
                except RuntimeError:  # no more threads are to be had: it stays until a later look
                    self.served.discard(body)
                    del self._ready[parked.proto]
                    return
                del self._full[parked]
                self.parked.pop(parked, None)
                crowded, satisfied = self._crowded(), self._satisfied()


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
        "_moved",
        "_parking",
        "_pending",
        "_proto",
        "_then",
        "broken",
        "ended",
        "received",
        "refused",
        "scope",
        "waiting",
    )

    def __init__(
        self, proto: Any, moved: Callable[[], object], parking: Parking | None = None, scope: Any = None
    ) -> None:
        self._proto, self._moved, self._parking, self.scope = proto, moved, parking, scope
        self._gate: Gate | None = None
        self._then: Callable[[], object] | None = None  # while it is gathered
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
            raise RefusedBodyError
        pending, self._pending = self._pending, None
        message = self._wait(self._proto.receive() if pending is None else pending)
        if message["type"] == "http.disconnect":
            self.broken = self.ended = True
            return
        self._buffer += message["body"]
        self.received += len(message["body"])
        parking = self._parking
        if parking is not None and 0 < parking.max_body < self.received:
            parking.refused("body_size", self.client, "")
            self._refuse(LARGE)
        self._moved()
        if not message["more_body"]:
            self.end()

    def end(self) -> None:
        """Note that all of it is there, which granian may say with a part of its own, later."""
        if self.ended:
            return
        self.ended = True
        if self._parking is not None and self._parking.parked:
            self._parking.look()

    def gather(self, most: int, then: Callable[[], object]) -> None:
        """Read up to the end, or to so many bytes, and call `then`: in one of granian's threads.

        `then` may be called twice for a body that is refused meanwhile.
        """
        self._then = then
        with contextlib.suppress(ConnectionResetError):
            while not self.ended and not self.refused and len(self._buffer) < most:
                self._pending = pending = self._proto.receive()
                if hasattr(pending, "add_done_callback"):
                    self.waiting = True
                    pending.add_done_callback(lambda _: self._came(most, then))
                    return
                self._take()
        self._then = None
        then()

    def _came(self, most: int, then: Callable[[], object]) -> None:
        self.waiting = False
        with contextlib.suppress(ConnectionResetError):
            self._take()
        self.gather(most, then)

    def refuse(self) -> None:
        """See engines/common/watch.py. The thread that waits answers; where none does, this one."""
        gate, then, pending, self.refused = self._gate, self._then, self._pending, True
        if then is not None:
            if pending is not None:
                pending.cancel()
            with contextlib.suppress(ConnectionResetError):
                self._refuse(TIME)
            then()
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
        raise RefusedBodyError

    def _cut(self, size: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return data


def peer_of(scope: dict[str, Any]) -> tuple[str, int]:
    """The client's address and port; of a unix socket they are empty."""
    return scope["client"][0], int(scope["client"][1])
