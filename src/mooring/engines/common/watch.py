"""Ends the connections of clients that stall, by the kernel's numbers: for engines that have no hooks for it.

A thread looks at this process's connections once a second, so that no request pays for it. The engine only
says which clients have a request in flight, and which bodies are awaited. Of a connection without a request
in flight, tcp_info tells the rest: silent since it was opened; received more recently than sent, so a head is
pending; or sent more recently, so it is idle.

Of a unix socket the kernel tells less. An engine that knows the descriptors of its connections names them,
and which of them a head is pending on. With one that does not (granian), only what never sent a byte since it
was first looked at is ended; granian's own time for a head is for the others.
"""

from __future__ import annotations

import _socket  # gevent replaces the class in the module socket
import contextlib
import logging
import os
import resource
import struct
from collections.abc import Callable, Collection, Iterable
from time import monotonic, thread_time
from typing import Any, NamedTuple, Protocol

from mooring.engines import Serving
from mooring.engines.common.connections import Connections, Numbers, Peer
from mooring.engines.common.full import Full
from mooring.engines.common.pace import RATE, Pace
from mooring.engines.common.refusal import TIME
from mooring.engines.common.websockets import FRAGMENTS
from mooring.system.unpatched import native

_PAUSE, _LEAST, _SHARE = 1.0, 0.05, 100  # between two looks: seconds, and so many times a look's CPU time
_LONGEST = 10.0
_HURRY = 0.25  # seconds: with WebSockets, whose floods are dear until they are seen
_OWN = 128  # descriptors that are no connections
_ROOM = 1024  # connections beyond the most, between two looks
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what the client did not take is dropped
# bytes of HTTP/2 frames that are of no request: more than a connection's windows, which bodies may fill while
# their requests are not known here yet
_LOOSE = 8 * 2**20
_OPENING = 16  # bytes of an answer, for which a client may send one more: as it takes them, it opens windows
_FRAME = 14  # bytes of a WebSocket frame's head: RFC 6455, 5.2
_LOG = logging.getLogger("mooring")


class Upload(Protocol):
    """A request's body, as the watch sees it."""

    @property
    def client(self) -> Peer | None:
        """Whose it is."""

    @property
    def waiting(self) -> bool:
        """Whether the application waits for a part of it."""

    @property
    def received(self) -> int:
        """Bytes that have come."""

    @property
    def refused(self) -> bool:
        """Whether it is not read any more: the client was told so, or is about to be."""

    @property
    def multiplexed(self) -> bool:
        """Whether its connection has other requests too."""

    def refuse(self) -> None:
        """End the wait, and answer with 408 where that is still possible. Called in the watch's thread."""


class Reader(Protocol):
    """A WebSocket, as the watch sees it."""

    @property
    def client(self) -> Peer | None:
        """Whose it is."""

    @property
    def messages(self) -> int:
        """How many have come; below 0: none is waited for."""

    def excessive(self) -> None:
        """End it: what comes is no message any more. Called in the watch's thread."""


class Sending(Protocol):
    """An answer over HTTP/2, of which a part waits for the client."""

    @property
    def client(self) -> Peer | None:
        """Whose it is."""

    @property
    def parts(self) -> int:
        """How many were sent; below 0: none waits."""

    def give_up(self) -> None:
        """End the wait. Called in the watch's thread."""


class _Seen:
    """What is known of a connection from the look before; the times are in seconds of looking."""

    __slots__ = (
        "acked",
        "base",
        "head",
        "heard",
        "inode",
        "loose",
        "messages",
        "peer",
        "quiet",
        "received",
        "stuck",
    )

    def __init__(self, each: Numbers, elapsed: float) -> None:
        self.peer, self.inode, self.acked, self.received = each.peer, each.inode, -1, each.received
        # for how long a head has been pending: not for all of the time since the look before
        self.head = 0.0 if each.is_unix else -max(0.0, elapsed - each.received_ago)
        self.stuck = 0.0  # for how long the client has taken nothing of what waits for it
        self.quiet = -1.0  # for how long nothing has passed; below 0: not looked at yet; of a unix socket
        self.heard = False  # whether anything has passed since the first look; of a unix socket
        self.loose = 0  # bytes of HTTP/2 that are of no request
        self.messages = self.base = -1  # of a WebSocket; and what had been received when the last one came


class _Wait:
    """How long something has been waited for; in seconds of looking."""

    __slots__ = ("mark", "pace", "still")

    def __init__(self) -> None:
        self.mark, self.still, self.pace = -1, 0.0, Pace()


class Busy(NamedTuple):
    """What the engine knows: the clients with a request in flight, and the bodies among these.

    `heads`: connections of unix sockets on which a head is pending. `unnamed`: what stands for the requests
    in flight over unix sockets, where the engine does not know whose they are: the same object all the time.
    """

    clients: Collection[Peer | None]
    uploads: Iterable[Upload] = ()
    heads: Collection[Peer | None] = ()
    unnamed: Collection[object] = ()
    readers: Iterable[Reader] = ()
    sendings: Iterable[Sending] = ()


class _View(NamedTuple):
    """What the engine knows at a look, and how long after the look before."""

    elapsed: float
    awake: bool
    clients: Collection[Peer | None]
    heads: Collection[Peer | None]
    begun: set[Peer | None]  # clients of HTTP/2 of which something is awaited
    reading: dict[Peer | None, Reader]
    waiting: dict[Peer | None, list[tuple[Sending, _Wait]]]


class Watch:
    """The watch over one process's connections.

    `multiplexed`: add the client of each request over HTTP/2. `answered`: with TLS, add the clients of all
    requests: what the handshake sends is no answer.
    """

    def __init__(
        self,
        serving: Serving,
        busy: Callable[[], Busy],
        ping: Callable[[Callable[[], object]], object] | None = None,
        *,
        keep_alive: bool = True,
        heads: bool = True,
        named: bool = True,
    ) -> None:
        """`ping` has the event loop call a function: while the loop is blocked, requests that have come are
        not known yet, so that no time counts. `keep_alive`: end idle connections too; `heads`: those with a
        pending head. `named`: the engine knows the connections of unix sockets.
        """
        settings = serving.plan.settings
        self._refused, self._busy, self._ping = serving.refused, busy, ping
        self._connections = Connections(serving.doors.names)
        self._head, self._body, self._send = (
            settings.head_timeout if heads else 0.0,
            settings.body_timeout,
            settings.send_timeout,
        )
        self._keep_alive = settings.keep_alive if keep_alive else 0.0
        self._named, self._silent = named, settings.keep_alive + settings.head_timeout
        self._message = settings.websocket_max_size + FRAGMENTS * _FRAME + 2**20
        self._most = serving.plan.max_connections
        self._tls = serving.plan.tls
        self.multiplexed: set[Peer | None] = set()
        self.answered: set[Peer | None] | None = set() if serving.plan.tls else None
        limits = filter(None, (self._head, self._body, self._send, self._keep_alive))
        self._pause = max(_LEAST, min(_PAUSE, *(each / 4 for each in limits)))
        self._http2: set[Peer | None] = set()
        self._seen: dict[int, _Seen] = {}
        self._waits: dict[Upload, _Wait] = {}
        self._sending: dict[Sending, _Wait] = {}
        self._unnamed: dict[int, float] = {}  # for how long they have been in flight
        self._oldest = 0.0
        self._ending: dict[Peer | None, float] = {}
        self._kept: list[Any] = []
        self._awake, self._hurry = True, False
        self._full, self._failed = Full(serving), False

    def start(self) -> None:
        """Look from now on, in a thread of its own."""
        native("_thread", "start_new_thread")(self._run, (native("time", "sleep"),))

    def _run(self, sleep: Callable[[float], None]) -> None:
        pause, last = self._pause, monotonic()
        while True:
            sleep(pause)
            began, used = monotonic(), thread_time()
            # A process that was frozen, or without the interpreter's lock, knows nothing of that time.
            elapsed, last = min(began - last, 2 * pause), began
            try:
                self.look(elapsed)
            except Exception as error:  # the next look may be better
                if not self._failed:
                    self._failed = True
                    _LOG.error("a look at the connections failed", exc_info=error)
            pause = min(self._pause, _HURRY) if self._hurry else self._pause
            pause = min(_LONGEST, max(pause, _SHARE * (thread_time() - used)))

    def look(self, elapsed: float) -> None:
        """Look once; `elapsed` seconds count since the look before."""
        for each in self._kept:
            each.close()
        self._kept.clear()
        awake, self._awake = self._awake, self._ping is None
        if self._ping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._ping(self._wake)
        found = list(self._connections.numbers(self._seen))
        view = self._view(awake, elapsed)
        seen: dict[int, _Seen] = {}
        free = list[tuple[float, Numbers]]()
        for each in found:
            known = self._seen.get(each.fd)
            if known is None or known.peer != each.peer or known.inode != each.inode:
                known = _Seen(each, elapsed)
            seen[each.fd] = known
            silent = self._look_at(each, known, view)
            if silent >= 0:
                free.append((silent, each))
        before, self._seen = {each.peer for each in self._seen.values()}, seen
        peers = {each.peer for each in seen.values()}
        gone = before - peers  # not what is in no look yet
        self._http2 -= gone
        if self.answered is not None:
            self.answered -= gone
        self._ending = {peer: left for peer, left in self._ending.items() if peer in peers and left > 0}
        self._make_room(len(found), free)

    def _view(self, awake: bool, elapsed: float) -> _View:
        """What the engine knows now; and a look at what needs no connection."""
        begun = self.multiplexed.copy()
        self.multiplexed -= begun
        self._http2 |= begun
        busy = self._busy()
        uploads = list(busy.uploads)
        begun.update(each.client for each in uploads)  # what comes is a body
        if self._body:
            self._look_at_bodies(uploads, elapsed if awake else 0.0)
        self._unnamed = {key: self._unnamed.get(key, 0.0) + elapsed for key in map(id, busy.unnamed)}
        self._oldest = max(self._unnamed.values(), default=0.0) + 2 * elapsed
        reading = {each.client: each for each in busy.readers}
        self._hurry = bool(reading)
        waiting = self._waiting(busy.sendings) if self._send else {}
        return _View(elapsed, awake, busy.clients, busy.heads, begun, reading, waiting)

    def _look_at(self, each: Numbers, known: _Seen, view: _View) -> float:
        """Look at a connection; for how long it has been silent, or -1 if it is of use, or has been ended."""
        moved, came = each.acked - known.acked, each.received - known.received
        known.acked, known.received = each.acked, each.received
        if self._has_ended(each, known, moved != 0, view.elapsed):
            return -1.0
        if each.peer in view.waiting:
            self._look_at_sendings(view.waiting[each.peer], moved, view.elapsed)
        fair = round(RATE * view.elapsed)  # bytes: a ping now and then, for weeks, is no flood
        loose = came - moved // _OPENING - fair
        if each.peer in self._http2 and self._floods(each, known, loose, view.begun):
            return -1.0
        if each.is_unix:
            of_use = self._look_at_unix(each, known, bool(came or moved), view)
            return -1.0 if of_use or not view.awake else known.quiet
        if each.peer in view.clients:
            known.head = 0.0
            if each.peer in view.reading:
                self._look_at_messages(each, known, view.reading[each.peer], fair)
            return -1.0
        if not (view.awake and each.open) or self._look_at_head(each, known, moved != 0, view.elapsed):
            return -1.0
        return min(each.sent_ago, each.received_ago)

    def _wake(self) -> None:
        self._awake = True

    def _has_ended(self, each: Numbers, known: _Seen, moved: bool, elapsed: float) -> bool:
        """Whether the connection is at its end: the client takes nothing, or was refused a moment ago."""
        known.stuck = 0.0 if moved or not each.queued else known.stuck + elapsed
        if self._send and known.stuck >= self._send:
            self._end(each, "send_timeout", reset=not each.is_unix)
            return True
        if each.peer not in self._ending:
            return False
        self._ending[each.peer] -= elapsed
        if self._ending[each.peer] <= 0:
            self._end(each)
        return True

    def _look_at_head(self, each: Numbers, known: _Seen, moved: bool, elapsed: float) -> bool:
        """Whether the connection has been ended: its head took too long, or it was idle for too long."""
        if each.peer in self._http2:
            return False
        fresh = each.fresh or (self.answered is not None and each.peer not in self.answered)
        pending = fresh or each.received_ago < each.sent_ago
        known.head = known.head + elapsed if pending and (fresh or not moved) else 0.0
        if pending and self._head and known.head >= self._head:
            answer = TIME.raw if each.received and not self._tls else b""
            self._end(each, "head_timeout", answer)
            return True
        if not pending and self._keep_alive and each.sent_ago >= self._keep_alive:
            self._end(each)
            return True
        return False

    def _look_at_unix(self, each: Numbers, known: _Seen, passed: bool, view: _View) -> bool:
        """Whether a unix socket's connection is of use, or has been ended."""
        elapsed = view.elapsed if view.awake else 0.0
        passed = passed and known.quiet >= 0  # at the first look everything is new
        known.heard = known.heard or passed
        known.quiet = 0.0 if passed else max(0.0, known.quiet) + elapsed
        if self._named:
            known.head = known.head + elapsed if each.peer in view.heads else 0.0
            ended = 0 < self._head <= known.head
        elif known.heard or known.quiet <= self._oldest:
            return True  # a request that is in flight on it would be as old
        else:
            ended = self._head > 0 and self._silent <= known.quiet
        if ended:
            self._end(each, "head_timeout", TIME.raw if each.received and not self._tls else b"")
        return ended or each.peer in view.clients

    def _floods(self, each: Numbers, known: _Seen, loose: int, begun: Collection[Peer | None]) -> bool:
        """Whether a client sends HTTP/2 frames that are of no request: pings, settings and the like."""
        known.loose = 0 if each.peer in begun else max(0, known.loose + loose)
        if known.loose <= _LOOSE:
            return False
        self._end(each, "http2")
        return True

    def _look_at_messages(self, each: Numbers, known: _Seen, reader: Reader, fair: int) -> None:
        """End a WebSocket of which more comes than a message may have, without one: fragments, or pings."""
        count = reader.messages
        if count < 0 or count != known.messages:
            known.messages, known.base = count, each.received
            return
        known.base = min(each.received, known.base + fair)
        if each.received - known.base > self._message:
            known.messages = -1
            self._refused("websocket", each.peer, "what is sent is no message of the size that is allowed")
            reader.excessive()

    def _waiting(self, sendings: Iterable[Sending]) -> dict[Peer | None, list[tuple[Sending, _Wait]]]:
        """The answers that wait, by client."""
        found: dict[Peer | None, list[tuple[Sending, _Wait]]] = {}
        waits = {}
        for each in sendings:
            parts = each.parts
            if parts < 0:
                continue
            wait = waits[each] = self._sending.get(each) or _Wait()
            if parts != wait.mark:
                wait.mark, wait.still = parts, 0.0
            found.setdefault(each.client, []).append((each, wait))
        self._sending = waits
        return found

    def _look_at_sendings(self, waiting: list[tuple[Sending, _Wait]], moved: int, elapsed: float) -> None:
        """End the answers for which a client of HTTP/2 has opened no window, and takes nothing else."""
        taken = moved >= RATE * elapsed * len(waiting)
        for each, wait in waiting:
            wait.still = 0.0 if taken else wait.still + elapsed
            if wait.still >= self._send:
                wait.still = 0.0
                self._refused("send_timeout", each.client, "")
                each.give_up()

    def _look_at_bodies(self, uploads: Iterable[Upload], elapsed: float) -> None:
        waits = {}
        for each in uploads:
            if each.refused:
                continue
            wait = self._waits.get(each) or _Wait()
            waits[each] = wait
            received = each.received
            came, wait.mark = received != wait.mark, received
            if not each.waiting:
                wait.still = 0.0
                continue
            wait.still = 0.0 if came else wait.still + elapsed
            if wait.still >= self._body or wait.pace.is_slow(received, elapsed, self._body):
                if each.client is not None and each.client[0] and not each.multiplexed:
                    self._ending[each.client] = _PAUSE  # the client may read the answer before
                self._refused("body_timeout", each.client, "")
                each.refuse()
        self._waits = waits

    def _make_room(self, count: int, free: list[tuple[float, Numbers]]) -> None:
        """End the connections that have been idle or silent for longest, if there are too many."""
        self._full(count)
        if count <= self._most:
            return
        free.sort(key=lambda pair: pair[0], reverse=True)
        for _, each in free[: count - self._most]:
            self._end(each, "connections")

    def _end(self, each: Numbers, reason: str = "", answer: bytes = b"", *, reset: bool = False) -> None:
        """End a connection. The duplicate is kept until the next look, so that the answer can be read."""
        with contextlib.suppress(OSError):
            kept = _socket.socket(fileno=os.dup(each.fd))
            self._kept.append(kept)
            if os.fstat(kept.fileno()).st_ino != each.inode if each.is_unix else peer_of(kept) != each.peer:
                return  # another one meanwhile
            if answer:
                kept.send(answer, _socket.MSG_DONTWAIT)
            if reset:
                kept.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
            kept.shutdown(_socket.SHUT_RDWR)
            if reason:
                self._refused(reason, None if each.is_unix else each.peer, "")


def peer_of(sock: Any) -> Peer | None:
    """A TCP client's address and port, without the zone that the kernel adds to a link's address."""
    name = sock.getpeername()
    return (name[0].partition("%")[0], name[1]) if isinstance(name, tuple) else None


def accepted_connections(most: int) -> int:
    """How many connections an engine may accept: some more than the most, until the watch has looked."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    usable = most + _ROOM if limit == resource.RLIM_INFINITY else limit - _OWN
    return most + max(16, min(_ROOM, usable - most))
