"""The application's logging while it has configured none: its records go to mooring's log.

Nothing of that is in the way of an application that does configure logging, whenever it does. A logger above
the root one takes what no handler below has shown; the root logger itself stays without handlers, so
`logging.basicConfig()` and the like find what they expect. The moment a handler is added to the root logger,
everything is as Python leaves it.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

_basic_config = logging.basicConfig


class _Root(logging.RootLogger):
    """The root logger until the application configures logging."""

    mooring_level: int | None  # what its level was; None once the application has chosen one itself

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 (logging's name)
        """Add a handler; one that people read from is the application's configuration."""
        if shows(hdlr):
            step_aside()
        logging.Logger.addHandler(self, hdlr)

    def setLevel(self, level: int | str) -> None:  # noqa: N802 (logging's name)
        """Set the level, which is the application's from now on."""
        self.mooring_level = None
        logging.Logger.setLevel(self, level)


class _Above(logging.Handler):
    """Gives to mooring's handler what no handler of the application's shows."""

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
    """Take what the application logs from `level` on. To be called before it is imported.

    Logging calls at its import count, and so does what it has configured there.
    """
    handler.setLevel(logging.WARNING)
    logging.lastResort = handler  # where it has loggers of its own: the form, not which records
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
    """Leave `logging` as Python has it: the application configures its own."""
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
    """After the import: loggers of its own that show their records are the application's configuration."""
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.propagate and any(map(shows, logger.handlers)):
            step_aside()


def shows(handler: logging.Handler) -> bool:
    """Whether people read what a handler writes.

    None of those which libraries add by themselves (NullHandler), and frameworks (Django's mails, and its
    console while DEBUG is on), or which send a copy elsewhere (OpenTelemetry, Sentry).
    """
    names = {each.__name__ for each in type(handler).__mro__}
    copies = type(handler).__module__.partition(".")[0] in ("opentelemetry", "sentry_sdk")
    return not (copies or names & _SILENT or _debug_only(handler))


_SILENT = {"NullHandler", "SMTPHandler", "AdminEmailHandler"}


def _debug_only(handler: logging.Handler) -> bool:
    return any(type(each).__name__ == "RequireDebugTrue" for each in handler.filters)


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a handler of one of the application's own loggers has shown it."""
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
    """`logging.basicConfig`; without handlers, `logging.info()` and the like call it too: not then."""
    if not options and sys._getframe(1).f_globals is vars(logging):
        return
    _basic_config(**options)
