# mypy: disable-error-code=no-untyped-call
"""Reads the heads of requests for gunicorn's gthread worker, in its main loop: no thread waits for a client.

By itself a thread reads each head, and looks for a second at each new connection: a dozen clients that send a
byte now and then hold all threads. Here a thread gets a request once its head is whole. A body is read by the
application, so by a thread; but once half of the threads have one that is not whole, further ones are
gathered here first: whole ones, and the first bytes of large ones, which wait for a place among that half.
Not for what is no plain HTTP/1 from its first byte: PROXY protocol, uwsgi, HTTP/2 without TLS.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn import http, sock
from gunicorn.http2 import negotiation

from mooring.engines import Serving
from mooring.engines.common.pace import Pace
from mooring.engines.common.refusal import DROPPED, FIELDS, LARGE, LINGER, TIME, Answer
from mooring.engines.gunicorn.requests import Upload

_LOOK = 0.5  # seconds between two looks at all bodies
_SIZE = 65536  # of a read
_GATHERED = 65536  # bytes of a body that is read before a thread has the request
_MOST = 2**20  # bytes of a head, where no limit is set
_END = re.compile(rb"\n\r?\n")
_LINE = re.compile(rb" HTTP/\d\.\d\r?\n$")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d+)[ \t]*\r?\n", re.I)
_CODING = re.compile(rb"\ntransfer-encoding:", re.I)
_BODY = re.compile(rb"\n(?:content-length:[ \t]*(?:(\d{1,18})[ \t]*\r\n)?|transfer-encoding:)", re.I)
_EXPECTS = re.compile(rb"\nexpect:[ \t]*100-continue", re.I)
_LAST = b"\r\n0\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Client:
    """A connection that is read.

    `start`, `end`: where its request's head begins and ends in `data`; an `end` of 0 is not known yet.
    """

    __slots__ = (
        "conn",
        "data",
        "end",
        "expected",
        "full",
        "gone",
        "heard",
        "looked",
        "need",
        "pace",
        "polled",
        "searched",
        "since",
        "start",
    )

    def __init__(self, conn: Any, now: float) -> None:
        self.conn, self.data = conn, bytearray()
        self.since = self.heard = now
        self.searched = self.start = self.end = self.need = 0
        self.looked, self.pace = now, Pace()  # of a body: the last look
        self.full = self.expected = self.polled = self.gone = False

    @property
    def whole(self) -> bool:
        """Whether all of the body is there."""
        return len(self.data) >= self.need if self.need >= 0 else self.data.endswith(_LAST)


def _is_whole(data: bytes) -> bool:
    """Whether `data` is a whole request at least; False if that is not seen at once."""
    end = data.find(b"\r\n\r\n") + 4
    if end <= 4 or data[0] <= 32:
        return False
    found = _BODY.search(data, 0, end)
    return found is None or (found[1] is not None and len(data) - end >= int(found[1]))


class Heads:
    """The connections of one worker that owe a head, or a body that is gathered."""

    def __init__(
        self,
        worker: Any,
        serving: Serving,
        handle: Callable[[Any], Any],
        enqueue: Callable[[Any], object],
    ) -> None:
        """`handle` and `enqueue` are gunicorn's own."""
        settings = serving.plan.settings
        self._worker, self._refused, self._handle, self._enqueue = worker, serving.refused, handle, enqueue
        self._head, self._body = settings.head_timeout, settings.body_timeout
        self._most, self._max_body = settings.max_head or _MOST, settings.max_body
        self._share: int = max(1, worker.cfg.threads // 2)
        self._heads: dict[Any, _Client] = {}  # the oldest first
        self._bodies: dict[Any, _Client] = {}
        self._looked = 0.0
        self._lingering: dict[Any, list[float]] = {}  # until when, and how many bytes more
        # connections whose requests have threads, given without a whole body; None: not parsed yet
        self._unfinished: dict[Any, Upload | None] = {}
        cfg = worker.cfg
        self._tls = bool(cfg.is_ssl)
        self._whole = self._handle_tls if self._tls else handle
        self.plain = getattr(cfg, "protocol", "http") == "http" and cfg.proxy_protocol in (False, "off")

    def enqueue(self, conn: Any) -> None:
        """Have a connection's next request served, once its head is there; for a worker that is `plain`."""
        if conn.is_http2 or not (conn.initialized or self._begins(conn)):
            self._enqueue(conn)
            return
        data = conn.parser.unreader.buf.getvalue() if conn.initialized else b""
        if data:
            conn.parser.unreader.take_buffered()
        elif not self._tls:
            try:  # mostly all of it is there: the poller costs more than a look
                data = conn.sock.recv(_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            except OSError:
                self._close(conn)
                return
            else:
                if not data:
                    self._close(conn)
                    return
        if _is_whole(data):
            self._submit(conn, data, self._whole)
        else:
            self._wait(conn, data)

    def _wait(self, conn: Any, data: bytes) -> None:
        """Read the rest of a head, of which `data` has come."""
        client = self._heads[conn] = _Client(conn, time.monotonic())
        client.data += data
        conn.sock.setblocking(False)
        if self._tls and not conn.initialized:
            try:
                conn.sock = sock.ssl_wrap_socket(conn.sock, self._worker.cfg)
            except OSError:  # it has left
                self._drop(client)
                return
        if not (data and self._advance(client)) and self._tls:
            self._readable(client)
        if not client.full and (conn in self._heads or conn in self._bodies):
            client.polled = True
            self._worker.poller.register(conn.sock, selectors.EVENT_READ, partial(self._readable, client))

    def _begins(self, conn: Any) -> bool:
        """Whether this reads the first head of a connection."""
        cfg = self._worker.cfg
        if self._tls:
            return not cfg.do_handshake_on_connect
        return not negotiation.prior_knowledge_allowed(cfg, conn.client)

    def _finished(self, conn: Any) -> None:
        """A thread is done with a request that it got without its whole body."""
        if conn in self._unfinished:
            del self._unfinished[conn]
            self.look_at_places()

    @staticmethod
    def keep_pending(conn: Any) -> None:
        """Take what TLS has decrypted of the next request: the poller does not tell of it."""
        with contextlib.suppress(OSError):  # the next read tells
            while size := conn.sock.pending():
                buffer = conn.parser.unreader.buf
                buffer.seek(0, os.SEEK_END)
                buffer.write(conn.sock.recv(size))

    def begun(self, conn: Any, upload: Upload | None) -> None:
        """A thread has parsed the head of a request; without `upload` all of its body is there.

        Called in that thread.
        """
        if conn not in self._unfinished:
            return
        if upload is None:
            self._worker.method_queue.defer(self._finished, conn)
        else:
            self._unfinished[conn] = upload

    def look_at_places(self) -> None:
        """Give the threads of bodies that have come to others, those that have waited for longest."""
        for client in list(self._bodies.values()):
            if self._crowded():
                break
            self._give(client)

    def _crowded(self) -> bool:
        """Whether half of the threads have a body that is not whole."""
        if len(self._unfinished) < self._share:
            return False
        missing = [each for each in list(self._unfinished.values()) if each is None or not each.ended]
        return len(missing) >= self._share

    def _readable(self, client: _Client, _sock: Any = None) -> None:
        if client.gone:  # given to a thread by an event of the same round, which the poller told of before
            return
        conn = client.conn
        try:
            if self._tls and not conn.initialized and not self._handshaken(client):
                return
            while not client.full:
                data = conn.sock.recv(_SIZE)
                if not data:
                    self._drop(client)
                    return
                client.data += data
                client.heard = time.monotonic()
                if self._advance(client) or not self._tls:
                    return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except ssl.SSLEOFError:
            self._drop(client)
        except ssl.SSLError as error:
            self._refused("malformed", conn.client, error.reason or "TLS")
            self._drop(client)
        except OSError:
            self._drop(client)

    def _handshaken(self, client: _Client) -> bool:
        """End the handshake, if the client has sent its part; whether this goes on reading here."""
        conn = client.conn
        conn.sock.do_handshake()
        conn.initialized, is_http2 = True, sock.is_http2_negotiated(conn.sock)
        if not is_http2:
            conn.parser = http.get_parser(conn.cfg, conn.sock, conn.client)
            return True
        conn.parser = http.get_parser(conn.cfg, conn.sock, conn.client, http2_connection=True)
        conn.is_http2 = True
        conn.sock.setblocking(True)
        conn.parser.initiate_connection()
        self._give(client)
        return False

    def _advance(self, client: _Client) -> bool:
        """Whether the client is read no more: its request was given to a thread, or refused."""
        data = client.data
        if not client.end:
            start = client.start
            while data.startswith((b"\r\n", b"\n"), start):  # RFC 9112, 2.2
                start = data.index(b"\n", start) + 1
            client.start = start
            found = _END.search(data, max(start, client.searched - 3))
            client.searched = len(data)
            if found is None:
                return self._is_bad(client, start)
            client.end = found.end()
            self._measure(client)
            self._bodies[client.conn] = self._heads.pop(client.conn)
        if client.need < 0 and 0 < self._max_body < len(data) - client.end:
            self._refuse(client, "body_size", LARGE)
            return True
        if client.whole:
            self._give(client)
            return True
        if not self._crowded():
            self._give(client)
            return True
        if len(data) - client.end >= _GATHERED and not client.full:
            client.full = True
            self._unpoll(client)
        elif not client.expected and _EXPECTS.search(data, 0, client.end):
            client.expected = True
            with contextlib.suppress(OSError):  # it has left: the next read tells
                client.conn.sock.send(_CONTINUE)
        return client.full

    def _measure(self, client: _Client) -> None:
        """Find how long the request is. Only for when a thread gets it: gunicorn judges what it means."""
        length = _LENGTH.search(client.data, 0, client.end)
        if _CODING.search(client.data, 0, client.end):
            client.need = -1
        else:
            client.need = client.end + (int(length[1]) if length and len(length[1]) < 20 else 0)
        now = time.monotonic()
        client.since, client.looked, client.pace = now, now, Pace(len(client.data))

    def _is_bad(self, client: _Client, start: int) -> bool:
        """Have gunicorn refuse what is no request, at once; and what is too large a head."""
        if len(client.data) > self._most:
            self._refuse(client, "head_size", FIELDS)
            return True
        line = client.data.find(b"\n", start)
        if line >= 0:
            bad = _LINE.search(client.data[start : line + 1]) is None
        else:
            bad = 0 < self._worker.cfg.limit_request_line < len(client.data) - start
        if bad:
            self._give(client)
        return bad

    def _give(self, client: _Client) -> None:
        """Give the request to a thread."""
        conn = client.conn
        self._forget(client)
        handle = self._whole
        if not client.end:  # HTTP/2, or what gunicorn is to refuse
            handle = self._worker.handle
        elif not client.whole:
            self._unfinished[conn] = None
            handle = self._handle_unfinished
        self._submit(conn, bytes(client.data), handle)

    def _handle_tls(self, conn: Any) -> Any:
        result = self._handle(conn)
        if result is True:
            self.keep_pending(conn)
        return result

    def _handle_unfinished(self, conn: Any) -> Any:
        try:
            return self._whole(conn)
        finally:
            self._worker.method_queue.defer(self._finished, conn)

    def _submit(self, conn: Any, data: bytes, handle: Callable[[Any], Any]) -> None:
        """Have gunicorn handle a request, of which `data` was read, in one of the threads."""
        if not conn.initialized:
            conn.initialized = True
            conn.parser = http.get_parser(conn.cfg, conn.sock, conn.client)
        if data:
            conn.parser.unreader.buf.write(data)
        worker = self._worker
        done = worker.tpool.submit(handle, conn)
        done.add_done_callback(partial(worker.method_queue.defer, worker.finish_request, conn))

    def _forget(self, client: _Client) -> None:
        client.gone = True
        self._heads.pop(client.conn, None)
        self._bodies.pop(client.conn, None)
        self._unpoll(client)

    def _unpoll(self, client: _Client) -> None:
        if client.polled:
            client.polled = False
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._worker.poller.unregister(client.conn.sock)

    def _drop(self, client: _Client) -> None:
        self._forget(client)
        self._close(client.conn)

    def _close(self, conn: Any) -> None:
        self._worker.nr_conns -= 1
        conn.close()

    def _refuse(self, client: _Client, reason: str, answer: Answer) -> None:
        """Answer, and read on for a moment: what is unread at the close would reset the connection."""
        conn = client.conn
        self._refused(reason, conn.client, "")
        self._forget(client)
        try:
            if client.data:
                conn.sock.send(answer.raw)
            if not self._tls:
                conn.sock.shutdown(socket.SHUT_WR)
            self._worker.poller.register(conn.sock, selectors.EVENT_READ, partial(self._linger, conn))
            self._lingering[conn] = [time.monotonic() + LINGER, DROPPED]
        except (OSError, ValueError, KeyError):
            self._worker.nr_conns -= 1
            conn.close()

    def _linger(self, conn: Any, _sock: Any = None) -> None:
        try:
            size = len(conn.sock.recv(_SIZE))
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            size = 0
        self._lingering[conn][1] -= size or DROPPED
        if self._lingering[conn][1] <= 0:
            self._leave(conn)

    def _leave(self, conn: Any) -> None:
        del self._lingering[conn]
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._worker.poller.unregister(conn.sock)
        self._worker.nr_conns -= 1
        conn.close()

    def waits(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._heads or self._bodies or self._lingering)

    def look(self, deadline: float, idle: float) -> None:
        """End what takes too long; after `deadline`, in a drain, what has been silent for `idle` seconds."""
        now = time.monotonic()
        for conn in [conn for conn, (until, _) in self._lingering.items() if now >= until]:
            self._leave(conn)
        if now >= deadline:
            for client in [*self._heads.values(), *self._bodies.values()]:
                if now - client.heard >= idle:
                    self._drop(client)
        while self._head and self._heads:
            client = next(iter(self._heads.values()))
            if now - client.since < self._head:
                break
            self._refuse(client, "head_timeout", TIME)
        if now - self._looked >= _LOOK:
            self._looked = now
            self.look_at_places()
            for client in list(self._bodies.values()):
                self._look_at_body(client, now)

    def _look_at_body(self, client: _Client, now: float) -> None:
        if client.full:
            return
        passed, client.looked = now - client.looked, now
        slow = client.pace.is_slow(len(client.data), passed, self._body)
        if self._body and (now - max(client.heard, client.since) >= self._body or slow):
            self._refuse(client, "body_timeout", TIME)

    def close(self) -> None:
        """Close all: the grace period is over."""
        for client in [*self._heads.values(), *self._bodies.values()]:
            self._drop(client)
