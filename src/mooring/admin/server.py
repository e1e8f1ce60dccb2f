"""The admin endpoint's server: HTTP in the supervisor's loop, one request per connection, all of it limited.

Each listener is a door with its own limit of clients, so that many clients at one do not lock out the others.
The constants below say how much time and memory a client may use. Where a door is full, a client is dropped
for a new one: first one that has had its response, then one that was slow to send its request or has stopped
reading. Not for the content of responses: routes.py.
"""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial

from mooring.admin.answers import Answer, Deferred, Request, attempt, parse
from mooring.supervisor.part import Part

Responder = Callable[[Request], Answer | Deferred]

READ_TIME, READ_PATIENCE = 5.0, 0.25  # seconds for a request's head; the same where others wait
_SILENT_PATIENCE = 0.05  # seconds for its first byte where others wait: most requests are there at the accept
READING, WAITING, WRITING, LINGERING = range(4)


class Door:
    """A listening, non-blocking socket, and the clients that were accepted from it."""

    def __init__(
        self,
        listener: socket.socket,
        answer: Responder,
        allowed: Callable[[socket.socket], bool],
        most: int,
    ) -> None:
        self.listener = listener
        self.answer = answer
        self.allowed = allowed
        self.most = most
        self.clients: set[Client] = set()
        self.paused: float | None = None  # accepts no client until then (monotonic seconds)


class Client:
    """One connection. It is dropped at `deadline`; where other clients wait, it may be from `patience` on.

    Both are in monotonic seconds.
    """

    __slots__ = ("deadline", "deferred", "door", "events", "head_only", "inbox", "outbox", "patience",
                 "socket", "state", "swallowed")  # fmt: skip

    def __init__(self, connection: socket.socket, door: Door, now: float) -> None:
        self.socket = connection
        self.door = door
        self.state = READING
        self.events = 0  # those that the selector watches; 0: not registered
        self.inbox = bytearray()
        self.outbox = memoryview(b"")
        self.head_only = False
        self.deferred: Deferred | None = None
        self.swallowed = 0
        self.deadline = now + READ_TIME
        self.patience = now + _SILENT_PATIENCE


LONGEST_HEAD = 16_384  # bytes; large, because browsers send the cookies of all ports of a host
CLIENTS, LEAST_CLIENTS = 128, 16  # at one door; so few where the process may open few descriptors
_SHARE = 8  # of the descriptors that the process may open, one in so many is for a door's clients
WRITERS = 16  # of these, that are sent a response: each takes memory
WRITE_TIME, LINGER_TIME = 10.0, 1.0  # seconds for sending the response; for the client to close after it
_WRITE_PATIENCE = 1.0  # seconds without progress in sending, where other clients wait
_PAUSE = 0.5  # seconds without accepting, after the system refused a descriptor or memory
_ACCEPTS = 16  # clients accepted in one turn: the loop must get to its signals
_LINGERED = 262_144  # bytes that are read and ignored after the response

_ENDING = b"\r\n\r\n"


class Admin(Part):
    """Serves any number of doors. `failed` is called with an error that making a response has raised."""

    def __init__(
        self, selector: selectors.BaseSelector, failed: Callable[[Exception], None] = lambda _error: None
    ) -> None:
        self.selector = selector
        self.failed = failed
        self.doors: list[Door] = []

    def open(
        self,
        listener: socket.socket,
        answer: Responder,
        *,
        allowed: Callable[[socket.socket], bool] = lambda _peer: True,
        most: int | None = None,
    ) -> Door:
        """Serve a listener: `answer(request)` gives the response, `allowed(socket)` admits a client.

        At most `most` clients are connected at once.
        """
        door = Door(listener, answer, allowed, _most_clients() if most is None else most)
        self.doors.append(door)
        self.selector.register(listener, selectors.EVENT_READ, partial(self._accept, door))
        return door

    # -- time ----------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds); None: not before something happens."""
        times = [client.deadline for door in self.doors for client in door.clients]
        times += [door.paused for door in self.doors if door.paused is not None]
        return min(times, default=None)

    def expire(self) -> None:
        """Drop the clients whose deadline is over, and accept again at doors whose pause is over."""
        now = time.monotonic()
        for door in self.doors:
            for client in [client for client in door.clients if client.deadline <= now]:
                if client.deferred is not None and client.deferred.answer is None:
                    client.deferred.complete(client.deferred.expired())
                elif client in door.clients:
                    self._drop(client)
            if door.paused is not None and door.paused <= now:
                self._resume(door)

    def _pause(self, door: Door, until: float) -> None:
        self.selector.unregister(door.listener)
        door.paused = until

    def _resume(self, door: Door) -> None:
        try:
            self.selector.register(door.listener, selectors.EVENT_READ, partial(self._accept, door))
        except OSError:  # ENOSPC, ENOMEM
            door.paused = time.monotonic() + _PAUSE
        else:
            door.paused = None

    # -- coming in -----------------------------------------------------------------------------------------

    def _accept(self, door: Door) -> None:
        if door.paused is not None:
            return  # paused by an earlier event of the same batch
        for _ in range(_ACCEPTS):
            now = time.monotonic()
            if len(door.clients) >= door.most and not self._give_way(door, now):
                self._pause(door, min(client.patience for client in door.clients))
                return
            try:
                connection, _ = door.listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # such as EMFILE: the connection stays queued, and would wake the loop at once
                self._pause(door, now + _PAUSE)
                return
            if not door.allowed(connection):
                connection.close()
                continue
            connection.setblocking(False)
            client = Client(connection, door, now)
            door.clients.add(client)
            self._turn(client)

    def _give_way(self, door: Door, now: float) -> bool:
        """Drop the client whose patience ends first, if it has ended. Returns whether one was dropped."""
        client = min(door.clients, key=lambda each: each.patience)
        if client.patience > now:
            return False
        self._drop(client)
        return True

    # -- one client ----------------------------------------------------------------------------------------

    def _turn(self, client: Client) -> None:
        if client not in client.door.clients:
            return  # dropped by an earlier event of the same batch
        try:
            if client.state == READING:
                self._read(client)
            elif client.state == WRITING:
                self._write(client)
            elif client.state == LINGERING:
                self._linger(client)
        except BlockingIOError:
            self._watch(client, selectors.EVENT_WRITE if client.state == WRITING else selectors.EVENT_READ)
        except OSError:
            self._drop(client)

    def _watch(self, client: Client, events: int) -> None:
        if client.events == events:
            return
        if not events:
            self.selector.unregister(client.socket)
        elif client.events:
            self.selector.modify(client.socket, events, partial(self._turn, client))
        else:
            try:
                self.selector.register(client.socket, events, partial(self._turn, client))
            except OSError:  # ENOSPC, ENOMEM
                client.door.clients.discard(client)
                client.socket.close()
                return
        client.events = events

    def _read(self, client: Client) -> None:
        data = client.socket.recv(LONGEST_HEAD)
        if not data:
            self._drop(client)
            return
        if not client.inbox:
            client.patience = client.deadline - READ_TIME + READ_PATIENCE
        client.inbox += data
        end = client.inbox.find(_ENDING, max(0, len(client.inbox) - len(data) - len(_ENDING)))
        if end < 0 and len(client.inbox) < LONGEST_HEAD:
            self._watch(client, selectors.EVENT_READ)
            return
        if end < 0 or end > LONGEST_HEAD:
            self._send(client, Answer(431, f"a request's head may have {LONGEST_HEAD} bytes"))
            return
        found = self._answer(client)
        client.inbox.clear()
        if isinstance(found, Answer):
            self._send(client, found)
            return
        client.state, client.deferred, client.deadline = WAITING, found, found.deadline
        client.patience = time.monotonic() + _WRITE_PATIENCE
        self._watch(client, 0)  # else what the client sends now would wake the loop again and again
        found.when_done(partial(self._deferred_done, client))

    def _answer(self, client: Client) -> Answer | Deferred:
        request = parse(bytes(client.inbox))
        if request is None:
            return Answer(400, "bad request")
        client.head_only = request.method == "HEAD"
        return attempt(partial(client.door.answer, request), self.failed)

    def _deferred_done(self, client: Client, answer: Answer) -> None:
        client.deferred = None
        if client not in client.door.clients:
            return
        try:
            self._send(client, answer)
        except BlockingIOError:
            self._watch(client, selectors.EVENT_WRITE)
        except OSError:
            self._drop(client)

    def _send(self, client: Client, answer: Answer) -> None:
        now = time.monotonic()
        writing = [each for each in client.door.clients if each.state == WRITING]
        if len(writing) >= WRITERS:
            self._drop(min(writing, key=lambda each: each.patience))
        client.outbox = memoryview(answer.encode(head_only=client.head_only))
        client.state, client.deadline, client.patience = WRITING, now + WRITE_TIME, now + _WRITE_PATIENCE
        self._write(client)

    def _write(self, client: Client) -> None:
        while client.outbox:
            client.outbox = client.outbox[client.socket.send(client.outbox) :]
            client.patience = time.monotonic() + _WRITE_PATIENCE
        # Closing with unread data makes TCP send a reset, and the response could be lost: RFC 9112, 9.6.
        client.socket.shutdown(socket.SHUT_WR)
        client.state, client.patience = LINGERING, 0.0
        client.deadline = time.monotonic() + LINGER_TIME
        self._linger(client)

    def _linger(self, client: Client) -> None:
        data = client.socket.recv(65_536)
        client.swallowed += len(data)
        if not data or client.swallowed > _LINGERED:
            self._drop(client)
        else:
            self._watch(client, selectors.EVENT_READ)

    def _drop(self, client: Client) -> None:
        door = client.door
        door.clients.discard(client)
        if client.events:
            self._watch(client, 0)
        client.socket.close()
        if door.paused is not None:
            self._resume(door)


def _most_clients() -> int:
    """The most clients of a door: the workers' descriptors come first."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return CLIENTS if limit < 0 else max(LEAST_CLIENTS, min(CLIENTS, limit // _SHARE))
