"""Who has come to the admin endpoint, and by which door. Not for what is done with them: server.py."""

from __future__ import annotations

import socket
from collections.abc import Callable

from mooring.admin.answers import Answer, Deferred

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
