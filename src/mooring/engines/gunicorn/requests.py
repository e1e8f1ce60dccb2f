# mypy: disable-error-code=no-untyped-call
"""The requests in flight of gunicorn's WSGI workers, as the watch over stalled clients needs them.

The bytes of a body come through gunicorn's unreader, one for each connection: while a request with a body is
in flight, its reading goes through here. See engines/common/watch.py.
"""

from __future__ import annotations

import _socket  # gevent replaces the class in the module socket
import contextlib
import errno
import os
import time
from typing import Any

from gunicorn import util

from mooring.engines import Serving
from mooring.engines.common.connections import sent_ago
from mooring.engines.common.refusal import LARGE, TIME, Refusal
from mooring.engines.common.watch import Busy, Peer, Watch


class Upload:
    """A request's body, while it is read."""

    __slots__ = (
        "_began",
        "_most",
        "_own",
        "_serving",
        "_sock",
        "client",
        "multiplexed",
        "received",
        "refused",
        "waiting",
    )

    def __init__(self, unreader: Any, sock: Any, client: Peer | None, serving: Serving) -> None:
        self._own, self._sock, self._serving, self.client = unreader.chunk, sock, serving, client
        self._most, self._began = serving.plan.settings.max_body, time.monotonic()
        self.received = 0
        self.waiting = self.refused = self.multiplexed = False
        unreader.chunk = self.chunk

    def chunk(self, size_hint: Any = None) -> bytes:
        """The next bytes of the connection; stands for gunicorn's own function."""
        if self.refused:
            raise ConnectionResetError(errno.ECONNRESET, "the request's body was refused")
        data = self._wait(size_hint)
        self._check()
        self.received += len(data)
        if self._most and self.received > self._most:
            self._serving.refused("body_size", self.client, "")
            self._answer(LARGE)
        return data

    def _check(self) -> None:
        if self.refused:
            self._answer(TIME)

    def _wait(self, size_hint: Any) -> bytes:
        self.waiting = True
        try:
            data: bytes = self._own(size_hint)
        finally:
            self.waiting = False
        return data

    def refuse(self) -> None:
        """End the wait: who waits reads the end of the connection. Called in the watch's thread."""
        self.refused = True
        with contextlib.suppress(OSError):
            own = _socket.socket(fileno=os.dup(self._sock.fileno()))
            try:
                own.shutdown(_socket.SHUT_RD)
            finally:
                own.close()

    def _answer(self, refusal: Refusal) -> None:
        self.refused = True
        with contextlib.suppress(OSError):
            if not sent_ago(self._sock.fileno()) < time.monotonic() - self._began:
                refuse(self._sock, refusal)
        raise ConnectionResetError(errno.ECONNRESET, "the request's body was refused")


class Requests:
    """Those in flight in one worker."""

    def __init__(self, serving: Serving) -> None:
        self._serving, self._most = serving, serving.plan.settings.max_body
        self._flying: dict[Any, Any] = {}
        self._uploads: dict[Any, Upload] = {}
        self._watch = Watch(serving, self._busy, keep_alive=False)
        self._answered = self._watch.answered

    def start(self) -> None:
        """Watch from now on."""
        self._watch.start()

    def begin(self, req: Any, sock: Any, address: Any) -> bool:
        """Note a request whose head has come; False if it was refused, and its connection is to be closed."""
        self._flying[sock] = address
        if self._answered is not None:
            self._answered.add(_peer(address))
        reader = req.body.reader
        length = getattr(reader, "length", None)
        if length == 0:
            return True
        if self._most and length is not None and length > self._most:
            self._serving.refused("body_size", address, "")
            with contextlib.suppress(OSError):
                refuse(sock, LARGE)
                util.close_graceful(sock)
            self.end(req, sock)
            return False
        self._uploads[sock] = Upload(req.unreader, sock, _peer(address), self._serving)
        return True

    def end(self, req: Any, sock: Any) -> None:
        """Note the end of a request."""
        self._flying.pop(sock, None)
        if self._uploads.pop(sock, None) is not None:
            del req.unreader.chunk

    def hold(self, sock: Any, address: Any) -> None:
        """Note a connection with requests of its own, as in HTTP/2, until its release."""
        self._flying[sock] = address

    def release(self, sock: Any) -> None:
        """The end of what `hold` noted."""
        self._flying.pop(sock, None)

    def _busy(self) -> Busy:
        clients = {_peer(each) for each in list(self._flying.values())}
        return Busy(clients, list(self._uploads.values()))


def refuse(sock: Any, refusal: Refusal) -> None:
    """Send an answer, without waiting for a client that takes none."""
    before = sock.gettimeout()
    sock.settimeout(1.0)
    try:
        sock.sendall(refusal.raw)
    finally:
        sock.settimeout(before)


def _peer(address: Any) -> Peer | None:
    """A client's address as the watch has it."""
    return (address[0].partition("%")[0], address[1]) if isinstance(address, tuple) else None
