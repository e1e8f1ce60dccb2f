"""The time limit for requests of a WSGI application, which runs in threads of its own for that.

A thread cannot be interrupted. So the server's thread waits for the application's, and at the deadline it is
free again: it answers 504, or cuts an answer that has begun. The application's thread is lost until it comes
back, what it still answers is dropped, and another takes its place. Where half of a worker's threads are
lost, the worker is to be replaced. In gevent's worker the greenlet is interrupted, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from queue import SimpleQueue
from time import monotonic
from typing import Any

from mooring.application.model import WSGI, Environ, StartResponse
from mooring.instrument.late import LATE, RequestTimeoutError
from mooring.logs.escape import escape
from mooring.scoreboard.row import TIMED_OUT, Row
from mooring.system.unpatched import native

_LOG = logging.getLogger("mooring")
_END = b""  # of a body: an application's empty parts are not passed on
Recycle = Callable[[str], object]


class _LateError(Exception):
    """A step was not done in time; the argument is the stack."""


class _Thread:
    """A thread of the application's, for one request at a time."""

    def __init__(self) -> None:
        self._given: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._done = native("_thread", "allocate_lock")()
        self._lock = native("_thread", "allocate_lock")()
        self._done.acquire()
        self._finished = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._late: Callable[[Any], None] | None = None  # what to do when it comes back
        self._ident = native("_thread", "start_new_thread")(self._run, ())

    def _run(self) -> None:
        while True:
            work, result, error = self._given.get(), None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            with self._lock:
                self._finished = True
                late = self._late
                if late is None:
                    self._result, self._error = result, error
            if late is not None:
                late(result)
                return
            del result, error, work
            self._done.release()

    def step(self, work: Callable[[], Any], end: float | None, late: Callable[[Any], None]) -> Any:
        """What `work` returns or raises, in this thread. Raises _LateError at `end` (monotonic seconds).

        `late` is then called with the result when it comes after all, and the thread ends.
        """
        self._finished = False
        self._given.put(work)
        if not self._done.acquire(timeout=-1 if end is None else max(0.0, end - monotonic())):
            with self._lock:
                if not self._finished:
                    self._late = late
                    raise _LateError(self._stack())
            self._done.acquire()
        result, error = self._result, self._error
        self._result = self._error = None
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # it has this frame

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._ident)
        found = traceback.StackSummary.extract(traceback.walk_stack(frame)) if frame is not None else []
        own = [each for each in reversed(found) if each.filename != __file__]
        return "".join(traceback.format_list(own)).rstrip()


class _Threads:
    """The application's threads of one worker, made when they are needed."""

    def __init__(self, threads: int, recycle: Recycle) -> None:
        self._idle: deque[_Thread] = deque()
        self._lock = native("_thread", "allocate_lock")()
        self._threads, self._recycle = threads, recycle
        self._lost, self._told = 0, False

    def take(self) -> _Thread:
        """One without a request."""
        try:
            return self._idle.pop()
        except IndexError:
            return _Thread()

    def give(self, thread: _Thread) -> None:
        """It has no request any more."""
        self._idle.append(thread)

    def lose(self, seconds: float, environ: Environ) -> None:
        """One does not come back in time."""
        threads = self._threads if environ.get("wsgi.multithread") else 1
        with self._lock:
            self._lost += 1
            due = not self._told and 2 * self._lost >= threads
            self._told = self._told or due
        if due:
            self._recycle(f"{self._lost} of {threads} threads are lost in requests of over {seconds:g} s")

    def found(self) -> None:
        """A lost one has come back."""
        with self._lock:
            self._lost -= 1


class _Greenlet:
    """The server's own greenlet: it can be interrupted."""

    def step(self, work: Callable[[], Any], end: float | None, _late: Callable[[Any], None]) -> Any:
        """As _Thread's."""
        if end is None:
            return work()
        gevent: Any = sys.modules["gevent"]
        timeout = gevent.Timeout(max(0.001, end - monotonic()))
        timeout.start()
        try:
            return work()
        except gevent.Timeout as error:
            if error is not timeout:
                raise
            found = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__))
            own = [each for each in found if each.filename != __file__]
            raise _LateError("".join(traceback.format_list(own)).rstrip()) from None
        finally:
            timeout.close()


class _Request:
    """One request: its steps, each in the application's thread."""

    def __init__(self, row: Row, pool: _Threads, seconds: float, environ: Environ) -> None:
        self._row, self._pool, self._seconds, self._environ = row, pool, seconds, environ
        self._end = monotonic() + seconds
        self._thread: _Thread | _Greenlet | None = _Greenlet() if _has_greenlets() else pool.take()
        self._context: Context = copy_context()
        self._body: Iterable[bytes] | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._started: tuple[Any, ...] | None = None
        self._write: Any = None
        self._lost = self.begun = False
        self._lock = native("_thread", "allocate_lock")()

    # -- in the server's thread ----------------------------------------------------------------------------

    def run(self, application: WSGI, start_response: StartResponse) -> Iterable[bytes]:
        """The response."""
        self._start_response = start_response
        try:
            body = self._step(lambda: self._call(application))
        except _LateError as error:
            self._tell(str(error))
            if self.begun:
                raise RequestTimeoutError(self._text("its response is cut")) from None
            return self._refuse(start_response)
        except BaseException:
            self._give()
            raise
        self._begin()
        if isinstance(body, _First):
            return _Rest(self, body.chunk)
        self._give()
        whole: Iterable[bytes] = body
        return whole

    def next(self) -> bytes:
        """The next part of the body; _END at its end."""
        try:
            chunk: bytes = self._step(self._next)
        except _LateError as error:
            self._tell(str(error))
            raise RequestTimeoutError(self._text("its response is cut")) from None
        return chunk

    def close(self) -> None:
        """The server is done with the response. What the application does then has no deadline."""
        if self._thread is None:
            return
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._thread.step(lambda: self._context.run(close), None, self._come_back)
        finally:
            self._give()

    def _step(self, work: Callable[[], Any]) -> Any:
        assert self._thread is not None
        return self._thread.step(lambda: self._context.run(work), self._end, self._come_back)

    def _begin(self) -> None:
        """Tell the server of the status and the headers, once; in either thread."""
        with self._lock:
            self._check()
            if self.begun or self._started is None:
                return
            self.begun = True
            code, fields, exc_info = self._started
            given = self._start_response
            self._write = given(code, fields, exc_info) if exc_info else given(code, fields)

    def _give(self) -> None:
        thread, self._thread = self._thread, None
        if isinstance(thread, _Thread):
            self._pool.give(thread)

    def _refuse(self, start_response: StartResponse) -> Iterable[bytes]:
        sock = self._environ.get("gunicorn.socket")
        if sock is not None and self._environ.get("CONTENT_LENGTH") not in {None, "", "0"}:
            # the thread may still read the body: not the connection's next request
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RD)
        start_response(
            "504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", str(len(LATE)))]
        )
        return [LATE]

    def _tell(self, stack: str) -> None:
        self._row.cells[TIMED_OUT] += 1.0
        with self._lock:
            self._lost = True
        thread, self._thread = self._thread, None
        ending = "it is interrupted" if isinstance(thread, _Greenlet) else "its thread goes on"
        _LOG.error("%s; %s, here:\n%s", self._text("504" if not self.begun else "cut"), ending, stack)
        if isinstance(thread, _Thread):
            self._pool.lose(self._seconds, self._environ)
        else:
            self._close(self._body)

    def _text(self, outcome: str) -> str:
        path = str(self._environ.get("RAW_URI") or self._environ.get("PATH_INFO")).partition("?")[0]
        method = escape(str(self._environ.get("REQUEST_METHOD")))
        return f"{method} {escape(path)} took over {self._seconds:g} s: {outcome}"

    # -- in the application's ------------------------------------------------------------------------------

    def _call(self, application: WSGI) -> Any:
        body = application(self._environ, self._start)
        if isinstance(body, (list, tuple)) or _is_file(self._environ, body):
            return body
        self._body = body
        self._chunks = iter(body)
        return _First(self._next())

    def _next(self) -> bytes:
        for chunk in self._chunks:
            if chunk:
                return chunk
        return _END

    def _start(self, code: str, fields: Any, exc_info: Any = None) -> Any:
        """The application's start_response: what it says is kept until there is a body."""
        self._check()
        self._started = (code, fields, exc_info)
        if self.begun and exc_info:
            self._start_response(code, fields, exc_info)  # raises the error, or replaces the headers
        return self._written

    def _written(self, data: bytes) -> Any:
        self._begin()
        if self._write is None:
            raise TypeError("this server's start_response returns no write()")
        return self._write(data)

    def _check(self) -> None:
        if self._lost:
            raise RequestTimeoutError(self._text("its answer is dropped"))

    def _come_back(self, result: Any) -> None:
        self._pool.found()
        self._close(result if self._body is None else self._body)

    @staticmethod
    def _close(body: Any) -> None:
        close = getattr(body, "close", None)
        if close is not None:
            with contextlib.suppress(BaseException):  # nobody waits for it
                close()


class _First:
    """The first part of a body that is no list."""

    __slots__ = ("chunk",)

    def __init__(self, chunk: bytes) -> None:
        self.chunk = chunk


class _Rest:
    """Such a body, as the server sees it."""

    def __init__(self, request: _Request, first: bytes) -> None:
        self._request, self._chunk = request, first

    def __iter__(self) -> Iterator[bytes]:
        chunk, self._chunk = self._chunk, _END
        while chunk:
            yield chunk
            chunk = self._request.next()

    def close(self) -> None:
        self._request.close()


def _is_file(environ: Environ, body: object) -> bool:
    kind = environ.get("wsgi.file_wrapper")
    return isinstance(kind, type) and isinstance(body, kind)


def _has_greenlets() -> bool:
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def timed(application: WSGI, row: Row, seconds: float, threads: int, recycle: Recycle) -> WSGI:
    """`application`, each request of which takes at most so many seconds.

    `threads` are the worker's; `recycle` is called, with the reason, where half of them are lost.
    """
    pool = _Threads(threads, recycle)

    def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return _Request(row, pool, seconds, environ).run(application, start_response)

    return wsgi
