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
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from mooring.engines import Serving
from mooring.engines.common.connections import Peer
from mooring.engines.common.refusal import DROPPED, DROPPED_BODY, LARGE, LINGER, TIME, Answer
from mooring.engines.common.watch import Busy, Watch

_LOOK = 0.2  # seconds


class Upload:
    """A request's body, while it is read."""

    __slots__ = (
        "_length",
        "_most",
        "_own",
        "_reader",
        "_serving",
        "_sock",
        "_then",
        "_tls",
        "_turn",
        "client",
        "multiplexed",
        "received",
        "refused",
        "waiting",
    )

    def __init__(  # noqa: PLR0917
        self,
        req: Any,
        sock: Any,
        client: Peer | None,
        serving: Serving,
        then: Callable[[], object],
        turn: Callable[[], object],
    ) -> None:
        """`then` is called when so many bytes have come as the head declares; `turn` lets others run."""
        unreader, self._reader, self._then = req.unreader, req.body.reader, then
        self._length: int | None = getattr(self._reader, "length", None)
        self._turn = turn
        self._own, self._sock, self._serving, self.client = unreader.chunk, sock, serving, client
        self._most, self._tls = serving.plan.settings.max_body, serving.plan.tls
        self.received = len(unreader.buf.getvalue())  # read with the head
        self.waiting = self.refused = self.multiplexed = False
        unreader.chunk = self.chunk

    @property
    def ended(self) -> bool:
        """Whether all of it has come; of chunks: whether the application has read them all."""
        if self._length is not None:
            return self.received >= self._length
        return getattr(self._reader, "parser", self) is None

    def chunk(self, size_hint: Any = None) -> bytes:
        """The next bytes of the connection; stands for gunicorn's own function."""
        if self.refused:
            raise ConnectionResetError(errno.ECONNRESET, "the request's body was refused")
        self._turn()
        data = self._wait(size_hint)
        self._check()
        self.received += len(data)
        if self._length is None:  # else it was compared before
            if 0 < self._most < self.received:
                self._serving.refused("body_size", self.client, "")
                self._answer(LARGE)
        elif self.received >= self._length:
            self._then()
        return data

    def _check(self) -> None:
        if self.refused:
            self._answer(TIME)

    def _wait(self, size_hint: Any) -> bytes:
        """What came. After the end of what it reads TLS cannot send: it looks meanwhile."""
        self.waiting = True
        before = self._sock.gettimeout()
        if self._tls:
            self._sock.settimeout(_LOOK)
        try:
            while True:
                try:
                    data: bytes = self._own(size_hint)
                except TimeoutError:
                    if not self._tls:
                        raise
                    if self.refused:
                        return b""
                else:
                    return data
        finally:
            self.waiting = False
            if self._tls:
                self._sock.settimeout(before)

    def refuse(self) -> None:
        """End the wait: who waits reads the end of the connection. Called in the watch's thread."""
        self.refused = True
        if self._tls:
            return
        with contextlib.suppress(OSError):
            own = _socket.socket(fileno=os.dup(self._sock.fileno()))
            try:
                own.shutdown(_socket.SHUT_RD)
            finally:
                own.close()

    def _answer(self, refusal: Answer) -> None:
        self.refused = True
        response = _response()
        if response is not None and not response.headers_sent:
            refuse(self._sock, refusal)
        raise ConnectionResetError(errno.ECONNRESET, "the request's body was refused")


class Requests:
    """Those in flight in one worker."""

    def __init__(
        self, serving: Serving, *, heads: bool = True, turn: Callable[[], object] = lambda: None
    ) -> None:
        """`heads`: the watch ends connections on which a head is pending. `turn` lets others run."""
        self._turn = turn
        self._serving, self._most = serving, serving.plan.settings.max_body
        self._flying: dict[Any, Any] = {}
        self._uploads: dict[Any, Upload] = {}
        self._heads: dict[Any, Any] = {}
        self._watch = Watch(serving, self._busy, keep_alive=False, heads=heads)
        self._answered = self._watch.answered

    def start(self) -> None:
        """Watch from now on."""
        self._watch.start()

    def begin(self, req: Any, sock: Any, address: Any, then: Callable[[], object] = lambda: None) -> bool:
        """Note a request whose head has come; False if it was refused, and its connection is to be closed.

        `then` is called when its body has come.
        """
        self._flying[sock] = address
        if self._answered is not None:
            self._answered.add(_peer(address, sock))
        reader = req.body.reader
        length = getattr(reader, "length", None)
        if length == 0:
            return True
        if self._most and length is not None and length > self._most:
            self._serving.refused("body_size", address, "")
            refuse(sock, LARGE)
            self.end(req, sock)
            return False
        if length is not None and len(req.unreader.buf.getvalue()) >= length:  # all of it is there
            return True
        self._uploads[sock] = Upload(req, sock, _peer(address, sock), self._serving, then, self._turn)
        return True

    def upload(self, sock: Any) -> Upload | None:
        """The body that is read from a connection."""
        return self._uploads.get(sock)

    def end(self, req: Any, sock: Any) -> None:
        """Note the end of a request."""
        self._flying.pop(sock, None)
        if self._uploads.pop(sock, None) is not None:
            del req.unreader.chunk

    def connect(self, sock: Any, address: Any) -> None:
        """Note a connection on which a head is read until `begin`; for unix sockets."""
        if not isinstance(address, tuple):
            self._heads[sock] = address

    def disconnect(self, sock: Any) -> None:
        """Note its end."""
        self._heads.pop(sock, None)

    def hold(self, sock: Any, address: Any) -> None:
        """Note a connection with requests of its own, as in HTTP/2, until its release."""
        self._flying[sock] = address

    def release(self, sock: Any) -> None:
        """The end of what `hold` noted."""
        self._flying.pop(sock, None)

    def _busy(self) -> Busy:
        clients = {_peer(address, sock) for sock, address in list(self._flying.items())}
        heads = {_peer(address, sock) for sock, address in list(self._heads.items())} - clients
        return Busy(clients, list(self._uploads.values()), heads)


def refuse(sock: Any, refusal: Answer) -> None:
    """Send an answer, and wait a moment for its reader: what is unread at the close would reset it."""
    end, left = time.monotonic() + LINGER, DROPPED_BODY if refusal is LARGE else DROPPED
    with contextlib.suppress(OSError):
        sock.settimeout(LINGER)
        sock.sendall(refusal.raw)
        sock.shutdown(_socket.SHUT_WR)
        while left > 0 and time.monotonic() < end:
            sock.settimeout(max(0.01, end - time.monotonic()))
            data = sock.recv(65536)
            left -= len(data) or left


def _response() -> Any:
    """Gunicorn's response to the request that this thread serves: its function has no other place for it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "handle_request" and "resp" in frame.f_code.co_varnames:
            return frame.f_locals.get("resp")
        frame = frame.f_back
    return None


def _peer(address: Any, sock: Any) -> Peer | None:
    """A client's address as the watch has it."""
    if isinstance(address, tuple):
        return address[0].partition("%")[0], address[1]
    with contextlib.suppress(OSError):
        return "", sock.fileno()
    return None
