"""The application's logging while it has configured none: its records go to mooring's log.

An application can still configure logging at any time. A logger above the root logger takes the records that
no handler below has shown. The root logger itself has no handlers, so that `logging.basicConfig()` and the
like work as usual. As soon as a handler is added to the root logger, everything done here is undone.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

_basic_config = logging.basicConfig


class _Root(logging.RootLogger):
    """The root logger until the application configures logging."""

    mooring_level: int | None  # the level before; None once the application has set one

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 (logging's name)
        """Add a handler; if it shows records to people, the application has configured logging."""
        if shows(hdlr):
            step_aside()
        logging.Logger.addHandler(self, hdlr)

    def setLevel(self, level: int | str) -> None:  # noqa: N802 (logging's name)
        """Set the level; from now on it is the application's choice."""
        self.mooring_level = None
        logging.Logger.setLevel(self, level)


class _Above(logging.Handler):
    """Passes the records that no handler of the application shows to mooring's handler."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self.handler = handler

    def handle(self, record: logging.LogRecord) -> bool:
        """Handle one record. The root logger's list of handlers may have been replaced."""
        if any(map(shows, logging.root.handlers)):
            step_aside()
            return False
        return not _is_shown(record) and bool(self.handler.handle(record))


def install(handler: logging.Handler, level: int) -> None:
    """Take the application's records from `level` on. Call this before the application is imported.

    Records of the import are taken too, and logging that is configured during the import is kept.
    """
    handler.setLevel(logging.WARNING)
    logging.lastResort = handler  # with loggers of its own, it changes only the records' form
    root = logging.root
    if isinstance(root, _Root) or root.handlers:
        return
    above = logging.Logger("mooring.above")
    above.handlers.append(_Above(handler))
    root.parent = above
    before = root.level
    root.setLevel(level)
    root.__class__ = _Root
    vars(root)["mooring_level"] = before
    logging.basicConfig = _configured


def step_aside() -> None:
    """Undo `install`: the application configures logging itself."""
    root: Any = logging.root
    if not isinstance(root, _Root):
        return
    root.__class__ = logging.RootLogger  # type: ignore[assignment]
    root.parent = None
    before = vars(root).pop("mooring_level")
    if before is not None:
        root.setLevel(before)
    if logging.basicConfig is _configured:
        logging.basicConfig = _basic_config


def settle() -> None:
    """Call this after the import: undo `install` if a logger of the application shows its records."""
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.propagate and any(map(shows, logger.handlers)):
            step_aside()


def shows(handler: logging.Handler) -> bool:
    """Whether people read what a handler writes.

    False for handlers that libraries (NullHandler) and frameworks (Django's mails, and its console while
    DEBUG is on) add by themselves, and for those that send a copy elsewhere (OpenTelemetry, Sentry).
    """
    names = {each.__name__ for each in type(handler).__mro__}
    copies = type(handler).__module__.partition(".")[0] in ("opentelemetry", "sentry_sdk")
    return not (copies or names & _SILENT or _debug_only(handler))


_SILENT = {"NullHandler", "SMTPHandler", "AdminEmailHandler"}


def _debug_only(handler: logging.Handler) -> bool:
    return any(type(each).__name__ == "RequireDebugTrue" for each in handler.filters)


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a handler of one of the application's own loggers has shown the record."""
    logger: Any = logging.root.manager.loggerDict.get(record.name)
    while isinstance(logger, logging.Logger) and logger is not logging.root:
        for handler in logger.handlers:
            if record.levelno >= handler.level and (
                shows(handler) or (_debug_only(handler) and handler.filter(record))
            ):
                return True
        logger = logger.parent
    return False


@functools.wraps(_basic_config)
def _configured(**options: Any) -> None:
    """`logging.basicConfig`; it does nothing when `logging.info()` and the like call it, without handlers."""
    if not options and sys._getframe(1).f_globals is vars(logging):
        return
    _basic_config(**options)
