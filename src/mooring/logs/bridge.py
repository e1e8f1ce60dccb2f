"""A worker's `logging`: the engines' loggers and Python's own messages, in the form of mooring's log.

Not for the application's logging: it is left alone, or, if there is none, fallback.py takes its records.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Container, Iterable
from typing import Any

from mooring.logs import fallback
from mooring.logs.log import LEVELS, Log, LogFiles
from mooring.logs.record import Record, as_json, as_text
from mooring.logs.sink import FILE_PIECE

_STANDARD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
_TRACEBACK = "Traceback (most recent call last):\n"


class Handler(logging.Handler):
    """Writes records through mooring's own log, tracebacks included."""

    def __init__(self, log: Log, files: LogFiles) -> None:
        super().__init__()
        self.log = log
        self.files = files

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            found = as_record(record, self.log.engines)
            self.log.record(
                found.level,
                found.message,
                found.fields,
                traceback=found.traceback,
                logger=found.logger,
                at=found.time,
            )
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Log in one record what `logging` prints in a dozen lines: the arguments do not fit the message."""
        error = sys.exc_info()[1]
        where = f"{record.pathname}:{record.lineno}"
        text = f"a record could not be logged ({where}): {type(error).__name__}: {_str(error)}"
        self.log.record("error", text, {"format": _str(record.msg)}, logger=record.name)

    def reopen(self) -> None:
        """Open the log files again, on SIGUSR1; warn about those that this user may not open."""
        for refused in self.files.reopen():
            self.log.warning(f"{refused}; the next roll (SIGHUP) takes the new file")


class Formatter(logging.Formatter):
    """Formats lines for a file that is not mooring's, in the log's form (text or json), without line ends."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.form, self.engines = log.form, log.engines

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        found = as_record(record, self.engines)
        json = self.form == "json"
        line = as_json(found, FILE_PIECE) if json else as_text(found, engines=self.engines)
        return line.decode().rstrip("\n")


def as_record(record: logging.LogRecord, engines: Container[str] = ()) -> Record:
    """A record of `logging` as a record of mooring's log; only the application's have `extra` fields.

    `engines` are the first parts of the names of the engines' loggers.
    """
    level = next((name for name in reversed(LEVELS) if record.levelno >= LEVELS[name]), "debug")
    trace = ""
    if record.exc_info and record.exc_info[1] is not None:
        trace = "".join(traceback.format_exception(record.exc_info[1]))
    elif record.exc_text:
        trace = record.exc_text
    if record.stack_info:
        trace = f"{trace.rstrip()}\n{record.stack_info}".lstrip("\n")
    message = record.getMessage().rstrip("\n")
    fields: dict[str, Any] = {}
    if record.name.partition(".")[0] not in engines:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    elif not trace:
        message, trace = _parted(message)
    return Record(record.created, record.process or 0, level, record.name, message, fields, trace.rstrip())


def _parted(message: str) -> tuple[str, str]:
    """Split a message into text and traceback, if an engine has put both into it."""
    what, head, frames = message.partition(_TRACEBACK)
    return (what.rstrip(" :\n"), head + frames) if what and frames else (message, "")


def configure(log: Log, level: str, files: LogFiles, loggers: Iterable[str]) -> Handler:
    """Send records of `loggers`, the engines', to the log; the application's too while it configures none.

    Returns the handler of the engines' loggers.
    """
    handler = Handler(log, files)
    for name in (*loggers, "mooring"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(LEVELS[level])
    fallback.install(Handler(log, files), log.level)
    _hook(log)
    return handler


def imported(loggers: Iterable[str]) -> None:
    """Call this after the application's import: the logging that it has configured by now is kept.

    `loggers` are the engines', which the application cannot disable.
    """
    fallback.settle()
    for name in (*loggers, "mooring"):
        logger = logging.getLogger(name)
        if any(isinstance(handler, Handler) for handler in logger.handlers):
            logger.disabled = False  # dictConfig disables all loggers that it does not name


def crashed(log: Log, error: BaseException) -> None:
    """Log an exception that ends the worker and is none of mooring's own errors."""
    _tell(log, "critical", "mooring", "the worker failed", error)


def _hook(log: Log) -> None:
    """Log uncaught exceptions in the log's form; with JSON also warnings (with text Python prints them)."""

    def in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_type is not SystemExit and found.exc_value is not None:
            name = found.thread.name if found.thread else "unknown"
            _tell(log, "error", "threading", f"exception in thread {name}", found.exc_value)

    def unraisable(found: Any) -> None:
        what = f"{found.err_msg or 'Exception ignored in'}: {_str(found.object)}"
        _tell(log, "error", "python", what, found.exc_value)

    def warned(  # noqa: PLR0917 (Python's signature)
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if file is not None:
            file.write(warnings.formatwarning(message, category, filename, lineno, line))
        else:
            text = f"{category.__name__}: {message} ({filename}:{lineno})"
            log.record("warning", text, {}, logger="py.warnings")  # as logging.captureWarnings names it

    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = unraisable
    if log.form == "json":
        warnings.showwarning = warned


def _tell(log: Log, level: str, logger: str, what: str, error: BaseException | None) -> None:
    text = f"{type(error).__name__}: {_str(error)}" if error is not None else ""
    trace = "".join(traceback.format_exception(error)).rstrip() if error is not None else ""
    log.record(
        level, f"{what}: {text.splitlines()[0] if text else 'unknown'}", {}, traceback=trace, logger=logger
    )


def _str(thing: object) -> str:
    try:
        return str(thing)
    except Exception:  # the application's own __str__
        return f"<{type(thing).__name__}>"
