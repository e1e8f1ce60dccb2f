"""Ends the connections of clients that stall, by the kernel's numbers: for engines that have no hooks for it.

A thread looks at this process's connections once a second, so that no request pays for it. The engine only
says which clients have a request in flight, and which bodies are awaited. Of a connection without a request
in flight, tcp_info tells the rest: silent since it was opened; received more recently than sent, so a head is
pending; or sent more recently, so it is idle. Not for unix sockets, whose clients have no addresses: behind
them is a proxy, which has limits of its own.
"""

from __future__ import annotations

import _socket  # gevent replaces the class in the module socket
import contextlib
import logging
import os
import resource
import struct
from collections.abc import Callable, Collection, Iterable
from time import monotonic
from typing import Any, NamedTuple, Protocol

from mooring.engines import Serving
from mooring.engines.common.connections import Connections, Numbers
from mooring.engines.common.full import Full
from mooring.engines.common.refusal import TIME
from mooring.system.unpatched import native

SECONDS, RATE = 20.0, 240  # a body may take so long, and then a second more for so many bytes
_PAUSE, _LEAST, _SHARE = 1.0, 0.05, 30  # between two looks: seconds, and so many times a look's time
_OWN = 128  # descriptors that are no connections
_ROOM = 1024  # connections beyond the most, between two looks
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what the client did not take is dropped
_LOG = logging.getLogger("mooring")

Peer = tuple[str, int]


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


class _Seen:
    """What is known of a connection from the look before; the times are in seconds of looking."""

    __slots__ = ("acked", "head", "peer", "stuck")

    def __init__(self, peer: Peer) -> None:
        self.peer, self.acked = peer, -1
        self.head = 0.0  # for how long a head has been pending
        self.stuck = 0.0  # for how long the client has taken nothing of what waits for it


class _Wait:
    """How long a body has been waited for; in seconds of looking."""

    __slots__ = ("all", "received", "still")

    def __init__(self) -> None:
        self.received, self.still, self.all = -1, 0.0, 0.0


class Busy(NamedTuple):
    """What the engine knows: the clients with a request in flight, and the bodies among these."""

    clients: Collection[Peer | None]
    uploads: Iterable[Upload] = ()


class Watch:
    """The watch over one process's connections.

    `multiplexed`: add the clients that speak HTTP/2. `answered`: with TLS, add the clients of all requests:
    what the handshake sends is no answer.
    """

    def __init__(
        self,
        serving: Serving,
        busy: Callable[[], Busy],
        ping: Callable[[Callable[[], object]], object] | None = None,
        *,
        keep_alive: bool = True,
    ) -> None:
        """`ping` has the event loop call a function: while the loop is blocked, requests that have come are
        not known yet, so that no time counts. `keep_alive`: end idle connections too.
        """
        settings = serving.plan.settings
        self._refused, self._busy, self._ping = serving.refused, busy, ping
        self._connections = Connections(serving.doors.names)
        self._head, self._body, self._send = (
            settings.head_timeout,
            settings.body_timeout,
            settings.send_timeout,
        )
        self._keep_alive = settings.keep_alive if keep_alive else 0.0
        self._most = serving.plan.max_connections
        self._tls = serving.plan.tls
        self.multiplexed: set[Peer | None] = set()
        self.answered: set[Peer | None] | None = set() if serving.plan.tls else None
        limits = filter(None, (self._head, self._body, self._send, self._keep_alive))
        self._pause = max(_LEAST, min(_PAUSE, *(each / 4 for each in limits)))
        self._seen: dict[int, _Seen] = {}
        self._waits: dict[Upload, _Wait] = {}
        self._ending: dict[Peer | None, float] = {}
        self._kept: list[Any] = []
        self._awake = True
        self._full, self._failed = Full(serving), False

    def start(self) -> None:
        """Look from now on, in a thread of its own."""
        native("_thread", "start_new_thread")(self._run, (native("time", "sleep"),))

    def _run(self, sleep: Callable[[float], None]) -> None:
        pause, last = self._pause, monotonic()
        while True:
            sleep(pause)
            began = monotonic()
            # A process that was frozen, or without the interpreter's lock, knows nothing of that time.
            elapsed, last = min(began - last, 2 * pause), began
            try:
                self.look(elapsed)
            except Exception as error:  # the next look may be better
                if not self._failed:
                    self._failed = True
                    _LOG.error("a look at the connections failed", exc_info=error)
            pause = max(self._pause, _SHARE * (monotonic() - began))

    def look(self, elapsed: float) -> None:
        """Look once; `elapsed` seconds count since the look before."""
        for each in self._kept:
            each.close()
        self._kept.clear()
        awake, self._awake = self._awake, self._ping is None
        if self._ping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._ping(self._wake)
        found = list(self._connections.numbers())
        clients, uploads = self._busy()
        if self._body:
            self._look_at_bodies(uploads, elapsed if awake else 0.0)
        seen, free = {}, []
        for each in found:
            known = self._seen.get(each.fd)
            if known is None or known.peer != each.peer:
                known = _Seen(each.peer)
            seen[each.fd] = known
            moved, known.acked = each.acked != known.acked, each.acked
            if self._has_ended(each, known, moved, elapsed):
                continue
            if each.peer in clients:
                known.head = 0.0
            elif awake and each.open and not self._look_at_head(each, known, moved, elapsed):
                free.append(each)
        before, self._seen = {each.peer for each in self._seen.values()}, seen
        peers = {each.peer for each in seen.values()}
        gone = before - peers  # not what is in no look yet
        self.multiplexed -= gone
        if self.answered is not None:
            self.answered -= gone
        self._ending = {peer: left for peer, left in self._ending.items() if peer in peers and left > 0}
        self._make_room(len(found), free)

    def _wake(self) -> None:
        self._awake = True

    def _has_ended(self, each: Numbers, known: _Seen, moved: bool, elapsed: float) -> bool:
        """Whether the connection is at its end: the client takes nothing, or was refused a moment ago."""
        known.stuck = 0.0 if moved or not each.queued else known.stuck + elapsed
        if self._send and known.stuck >= self._send:
            self._end(each, "send_timeout", reset=True)
            return True
        if each.peer not in self._ending:
            return False
        self._ending[each.peer] -= elapsed
        if self._ending[each.peer] <= 0:
            self._end(each)
        return True

    def _look_at_head(self, each: Numbers, known: _Seen, moved: bool, elapsed: float) -> bool:
        """Whether the connection has been ended: its head took too long, or it was idle for too long."""
        if each.peer in self.multiplexed:
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

    def _look_at_bodies(self, uploads: Iterable[Upload], elapsed: float) -> None:
        waits = {}
        for each in uploads:
            if each.refused:
                continue
            wait = self._waits.get(each) or _Wait()
            waits[each] = wait
            came, wait.received = each.received != wait.received, each.received
            if not each.waiting:
                wait.still = 0.0
                continue
            wait.all += elapsed
            wait.still = 0.0 if came else wait.still + elapsed
            if wait.still >= self._body or wait.all > SECONDS + each.received / RATE:
                if not each.multiplexed:
                    self._ending[each.client] = _PAUSE  # the client may read the answer before
                self._refused("body_timeout", each.client, "")
                each.refuse()
        self._waits = waits

    def _make_room(self, count: int, free: list[Numbers]) -> None:
        """End the connections that have been idle or silent for longest, if there are too many."""
        self._full(count)
        if count <= self._most:
            return
        free.sort(key=lambda each: min(each.sent_ago, each.received_ago), reverse=True)
        for each in free[: count - self._most]:
            self._end(each, "connections")

    def _end(self, each: Numbers, reason: str = "", answer: bytes = b"", *, reset: bool = False) -> None:
        """End a connection. The duplicate is kept until the next look, so that the answer can be read."""
        with contextlib.suppress(OSError):
            kept = _socket.socket(fileno=os.dup(each.fd))
            self._kept.append(kept)
            if peer_of(kept) != each.peer:
                return  # another one meanwhile
            if answer:
                kept.send(answer, _socket.MSG_DONTWAIT)
            if reset:
                kept.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
            kept.shutdown(_socket.SHUT_RDWR)
            if reason:
                self._refused(reason, each.peer, "")


def peer_of(sock: Any) -> Peer | None:
    """A TCP client's address and port, without the zone that the kernel adds to a link's address."""
    name = sock.getpeername()
    return (name[0].partition("%")[0], name[1]) if isinstance(name, tuple) else None


def accepted_connections(most: int) -> int:
    """How many connections an engine may accept: some more than the most, until the watch has looked."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    usable = most + _ROOM if limit == resource.RLIM_INFINITY else limit - _OWN
    return most + max(16, min(_ROOM, usable - most))
