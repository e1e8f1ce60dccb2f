"""mooring's own log: records as text or JSON (record.py), written whole to one descriptor.

Not the `logging` package: the supervisor must stay small, and must never wait for a slow reader of its log.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Container, Iterable, Mapping
from typing import Any

from mooring.logs.escape import escape
from mooring.logs.record import Record, as_json, as_text
from mooring.logs.sink import Sink

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_LAST_WAIT = 1000  # milliseconds
_last_form = "text"


class Log:
    """Writes one record a call to `fd`, which the workers share, or to its own open file description of it.

    A record for which the reader leaves no room is dropped and counted in `dropped`; a warning with the
    number is written as soon as there is room. `lost` counts those of all processes that have this log.
    `engines` are the first parts of the names of the engines' loggers.
    """

    def __init__(
        self,
        fd: int = 2,
        *,
        level: str = "info",
        form: str = "text",
        quiet: bool = False,
        colored: bool = False,
        engines: Container[str] = (),
    ) -> None:
        self._sink = Sink(fd)
        self.fd = self._sink.fd
        self._quiet = quiet
        self.set_level(level)
        self.form = form
        self.colored = colored
        self.engines = engines
        self.dropped = 0
        # Shared by all processes that are forked from this one; each has a cell, so that none is overwritten.
        self._lost = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    @property
    def lost(self) -> int:
        """Records that were dropped in this process, and in those that were forked from it."""
        return int(sum(self._lost))

    def set_level(self, level: str) -> None:
        """Log from this level on; a quiet log never logs below warning."""
        self.level = max(LEVELS[level], LEVELS["warning"]) if self._quiet else LEVELS[level]

    def debug(self, message: str, **fields: Any) -> None:
        """Log at debug."""
        self.record("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """Log at info."""
        self.record("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Log at warning."""
        self.record("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Log at error."""
        self.record("error", message, fields)

    def record(
        self,
        level: str,
        message: str,
        fields: Mapping[str, Any],
        *,
        told: Iterable[str] = (),
        traceback: str = "",
        logger: str = "mooring",
        at: float | None = None,
    ) -> None:
        """Write one record, if its level is logged; `told`: the fields that the message contains already."""
        if LEVELS[level] < self.level:
            return
        now = time.time()
        if self.dropped:
            lost = f"{self.dropped} log records were dropped: slow reader or full disk"
            if self._sink.write(self.line(Record(now, os.getpid(), "warning", "mooring", lost))):
                self.dropped = 0
        at = now if at is None else at
        record = Record(at, os.getpid(), level, logger, message, fields, traceback, frozenset(told))
        if not self._sink.write(self.line(record)):
            self.dropped += 1
            self._lost[os.getpid() % len(self._lost)] += 1

    def line(self, record: Record) -> bytes:
        """A record in this log's form."""
        if self.form == "json":
            return as_json(record, self._sink.limit)
        return as_text(record, colored=self.colored, engines=self.engines)


def wants_color(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether to write colours to `fd`, which must be a terminal: by NO_COLOR, else FORCE_COLOR, else TERM.

    https://no-color.org, https://force-color.org. A file, a pipe or a socket never gets colours.
    """
    if environ.get("NO_COLOR") or not os.isatty(fd):
        return False
    return bool(environ.get("FORCE_COLOR")) or environ.get("TERM", "dumb") not in ("", "dumb")


def set_last_form(form: str) -> None:
    """Set the form (text or json) of `last_words` and `show_traceback`, which work before there is a log."""
    global _last_form  # noqa: PLW0603
    _last_form = form


def last_words(text: str) -> None:
    """Write the one clear last line to stderr; wait a second at most for a reader that does not read."""
    _tell(f"mooring: {escape(text)}\n", "critical", text)


def show_traceback(text: str) -> None:
    """Write an application's traceback to stderr: line ends stay, other control characters are escaped."""
    lines = text.splitlines()
    if lines:
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        _tell("".join(f"{escape(line)}\n" for line in lines), "error", last, text)


def _tell(shown: str, level: str, message: str, traceback: str = "") -> None:
    sink = Sink(2)
    data = shown.encode("utf-8", "backslashreplace")
    if _last_form == "json":
        record = Record(time.time(), os.getpid(), level, "mooring", message, traceback=traceback)
        data = as_json(record, sink.limit)
    sink.write(data, _LAST_WAIT)


def open_log(path: str | None, default_fd: int) -> int:
    """The descriptor for a log setting: `-` and None are `default_fd`, a path is appended to.

    Raises OSError if the file cannot be opened; a named pipe needs a reader (ENXIO).
    """
    if path in {None, "-", ""}:
        return default_fd
    standard = {"/dev/stdout": 1, "/dev/stderr": 2}.get(str(path))
    if standard is not None:
        return standard  # the descriptor itself: a socket as stderr cannot be opened by its name
    return _open(str(path))


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o640)


class LogFiles:
    """The log files that were opened by a path, to open them anew after a rotation (SIGUSR1)."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, int]] = []

    def open(self, path: str | None, default_fd: int) -> int:
        """As `open_log`, remembered. Raises OSError."""
        fd = open_log(path, default_fd)
        if fd > 2:
            self.opened.append((os.path.abspath(str(path)), fd))
        return fd

    def without(self, fd: int | None) -> LogFiles:
        """The files without the one at `fd`, for a process that has closed it: the number may be reused."""
        others = LogFiles()
        others.opened = [(path, each) for path, each in self.opened if each != fd]
        return others

    def reopen(self) -> list[str]:
        """Open each path again, at the same descriptor number; returns a message for each that failed."""
        refused = []
        for path, fd in self.opened:
            try:
                new = _open(path)
            except OSError as error:
                refused.append(f"{path} cannot be opened again: {error.strerror}")
                continue
            os.dup2(new, fd, inheritable=False)
            os.close(new)
        return refused
