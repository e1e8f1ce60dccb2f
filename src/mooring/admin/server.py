"""The admin endpoint's server: HTTP in the supervisor's loop, one request a connection, bounded in every way.

Each listener is a door with a budget of its own, so that a crowd at one doesn't lock out the others. What a
client may take of each: the constants below. Where a door is full, somebody gives way:
first who has had its answer, then who has not sent its request within a moment, or has stopped reading. Not
for what is answered: routes.py.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from functools import partial

from mooring.admin.answers import Answer, Deferred, attempt, parse
from mooring.supervisor.part import Part

Responder = Callable[[str, str], Answer | Deferred]

READ_TIME, READ_PATIENCE = 5.0, 0.25  # seconds that a request's head may take; the same where others wait
READING, WAITING, WRITING, LINGERING = range(4)


class Door:
    """A listening, non-blocking socket, and who has come in by it."""

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
        self.paused: float | None = None  # not accepting until then


class Client:
    """One connection. `patience` is until when it stays where others wait, `deadline` until when at all."""

    __slots__ = ("deadline", "deferred", "door", "events", "head_only", "inbox", "outbox", "patience",
                 "socket", "state", "swallowed")  # fmt: skip

    def __init__(self, connection: socket.socket, door: Door, now: float) -> None:
        self.socket = connection
        self.door = door
        self.state = READING
        self.events = 0  # that the selector watches
        self.inbox = bytearray()
        self.outbox = memoryview(b"")
        self.head_only = False
        self.deferred: Deferred | None = None
        self.swallowed = 0
        self.deadline = now + READ_TIME
        self.patience = now + READ_PATIENCE


LONGEST_HEAD = 16_384  # bytes: browsers send the cookies of all ports of a host
CLIENTS = 16
WRITE_TIME, LINGER_TIME = 10.0, 1.0  # seconds; READ_TIME is a new client's
_WRITE_PATIENCE = 1.0  # seconds, where others wait
_PAUSE = 0.5  # seconds without accepting, where the system has no descriptor to give
_ACCEPTS = 16  # in a row: the loop has signals to hear
_LINGERED = 262_144  # bytes that a client may send after its request

_ENDING = b"\r\n\r\n"


class Admin(Part):
    """Answers at any number of doors. `failed` is told of an answer that raised an error."""

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
        most: int = CLIENTS,
    ) -> Door:
        """Answer at a listener with `answer(method, path)`: `most` clients at once, those `allowed`."""
        door = Door(listener, answer, allowed, most)
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
        """Send away whose time is over, and open doors again."""
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
            return  # by an event of the same batch
        for _ in range(_ACCEPTS):
            now = time.monotonic()
            if len(door.clients) >= door.most and not self._give_way(door, now):
                self._pause(door, min(client.patience for client in door.clients))
                return
            try:
                connection, _ = door.listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, say: the connection stays in the queue, and would wake us again at once
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
        """Send away who has kept others waiting the longest, if that is long enough."""
        client = min(door.clients, key=lambda each: each.patience)
        if client.patience > now:
            return False
        self._drop(client)
        return True

    # -- one client ----------------------------------------------------------------------------------------

    def _turn(self, client: Client) -> None:
        if client not in client.door.clients:
            return  # dropped a moment ago, by an event of the same batch
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
        client.patience = found.deadline
        self._watch(client, 0)  # what it sends now would wake us again and again
        found.when_done(partial(self._deferred_done, client))

    def _answer(self, client: Client) -> Answer | Deferred:
        request = parse(bytes(client.inbox))
        if request is None:
            return Answer(400, "bad request")
        client.head_only = request[0] == "HEAD"
        return attempt(partial(client.door.answer, *request), self.failed)

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
        client.outbox = memoryview(answer.encode(head_only=client.head_only))
        client.state, client.deadline, client.patience = WRITING, now + WRITE_TIME, now + _WRITE_PATIENCE
        self._write(client)

    def _write(self, client: Client) -> None:
        while client.outbox:
            client.outbox = client.outbox[client.socket.send(client.outbox) :]
            client.patience = time.monotonic() + _WRITE_PATIENCE
        # Closed with something unread, TCP would send a reset: the answer could be lost (RFC 9112, 9.6).
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
