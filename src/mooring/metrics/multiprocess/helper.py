"""The process beside the supervisor that reads the workers' metrics. The supervisor's side: client.py.

A request is one byte: MERGE or FOLD. An answer is one or more frames: a letter, a length, a text. PAGE, DONE
and FAILED end an answer; NOTE carries a warning for the log.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mooring.metrics.multiprocess import fold, merge, text
from mooring.metrics.multiprocess.frames import DONE, FAILED, FOLD, FRAME, LONGEST, NOTE, PAGE

_LOCK = ".mooring.lock"


class Helper:
    """Answers requests about one folder until no more come."""

    def __init__(self, connection: socket.socket, path: str, own: bool, idle: float) -> None:
        """`own`: only this instance uses the folder, so all pids in it are of this pid namespace.

        `run` returns after `idle` seconds without a request.
        """
        self.connection = connection
        self.own = own
        self.idle = idle
        self.folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def run(self) -> int:
        """Answer requests. Returns the exit code."""
        poller = select.poll()
        poller.register(self.connection, select.POLLIN)
        with suppress(ConnectionError):  # the supervisor has closed the connection
            while poller.poll(self.idle * 1000) and (request := self.connection.recv(1)):
                self._answer(request)
        return 0

    def _answer(self, request: bytes) -> None:
        try:
            with self._alone():
                if request == FOLD:
                    self._tidy()
                    self._send(DONE)
                    return
                found = merge.snapshot(self.folder)
                dead = fold.dead_strangers(found.contents) if self.own else set()
                self._send_page(found, dead)
                if fold.due(found.contents, dead):
                    self._tidy()
        except ConnectionError:
            raise
        except Exception as error:
            self._send(
                FAILED,
                f"the application's metrics cannot be read: {_reason(error)}".encode("utf-8", "replace"),
            )

    def _send_page(self, found: merge.Snapshot, dead: set[str]) -> None:
        if found.unreadable:
            name = found.unreadable[0].name
            self._note(
                f"the application's metrics lack {len(found.unreadable)} files that cannot be read, "
                f"such as {name}"
            )
        page = text.page(merge.gather(merge.shown(found.contents, dead)))
        if len(page) > LONGEST:
            self._send(FAILED, f"the application's metrics are longer than {LONGEST >> 20} MiB".encode())
        else:
            self._send(PAGE, page)

    def _tidy(self) -> None:
        try:
            fold.tidy(self.folder, strangers=self.own)
        except Exception as error:  # only a note, since the answer itself is sent before or after this
            self._note(f"the metrics of workers that have ended cannot be folded: {_reason(error)}")

    def _note(self, words: str) -> None:
        self._send(NOTE, words.encode("utf-8", "backslashreplace"))

    def _send(self, letter: bytes, body: bytes = b"") -> None:
        self.connection.sendall(FRAME.pack(letter, len(body)) + body)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the folder; wait for another instance's helper, or for one that is being killed."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            lock = os.open(_LOCK, flags, 0o600, dir_fd=self.folder)
        except OSError:  # such as on a full disk, where folding fails too: go on without the lock
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
