"""The servers' own access loggers, such as uvicorn.access: what the application sets on them counts here.

mooring writes the access log itself, so these loggers get no records of their servers. Each stands for that
server's log all the same. It has one handler, a mark that stands for mooring's own lines:

| the application | what happens |
|---|---|
| adds a filter | what it rejects has no line, what it changes in a record is changed in the line |
| adds a handler | it gets the records too |
| replaces the handlers | only its own get the records: there are no lines |
| disables the logger, raises its level, or takes its handlers away without `propagate` | no lines |

The last two rows do not hold for a log that was asked for by a setting. While nothing is set, nothing is done
for a request: the wrapper is told when the first thing is set (`subscribe`). What a server itself does to its
logger does not count, nor that logging.config disables loggers which it is not told of. Not for the records:
records.py.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, SupportsIndex

from mooring.logs.access.parts import Entry, Line
from mooring.logs.access.records import Shape, changed, record_of

_LOG = logging.getLogger("mooring")
_WATCHED = frozenset(("filters", "handlers", "disabled", "level", "propagate"))
_MARK = logging.NullHandler()
_MARK.set_name("mooring's access log")


class AccessLog:
    """What the application has set on the access loggers of this process; `watched` is the one there is.

    `insists`: a setting asks for the log. `say` logs what the application has
    changed; None: another process does that.
    """

    def __init__(self) -> None:
        self.loggers: tuple[AccessLogger, ...] = ()
        self.servers: frozenset[str] = frozenset()
        self.insists = False
        self.say: Callable[[str], object] | None = None
        self.setting = ""  # how the log is asked for
        self._begin: list[Callable[[], None]] = []
        self._serves = False
        self._told: set[str] = set()
        self._failed: set[str] = set()

    def subscribe(self, begin: Callable[[], None]) -> None:
        """Call `begin` once, now or later, when something is set; from then on lines are made by `line`."""
        self._serves = True
        self._begin.append(begin)
        self.look()

    def look(self) -> None:
        """Look at what is set now."""
        if not self._serves or not any(each.touched for each in self.loggers):
            return
        if self.say is not None:
            self._tell(self.say)
        waiting, self._begin = self._begin, []
        for begin in waiting:
            begin()

    def line(self, make: Line) -> Line:
        """`make`, after the application's filters and handlers; "" for a request without a line."""

        def line(entry: Entry) -> str:
            found = self._filtered(entry)
            if found is None:
                return ""
            target = self.target
            if target is not None:
                self._hand_over(target, found)
            return make(found) if self._has_lines(target) else ""

        return line

    @property
    def target(self) -> AccessLogger | None:
        """The logger whose handlers get the records: the first that has any, beginning with the engine's."""
        return next((each for each in self.loggers if each.own), None)

    def _has_lines(self, target: AccessLogger | None) -> bool:
        if self.insists:
            return True
        return not (any(each.silent for each in self.loggers) or (target is not None and not target.marked))

    def _filtered(self, entry: Entry) -> Entry | None:
        """The entry as the filters leave it; None: a filter has rejected it."""
        for logger in self.loggers:
            if not logger.filters:
                continue
            record = record_of(logger, logger.shape, entry)
            if record is None:
                continue
            made = record.args if isinstance(record.args, tuple) else dict(record.args or ())
            try:
                after: Any = logger.filter(record)  # since Python 3.12 it may be another record
                if not after:
                    return None
                left = after if isinstance(after, logging.LogRecord) else record
                entry = changed(entry, logger.shape, made, left)
            except Exception:
                self._fails(f"a filter of {logger.name}")
        return entry

    def _hand_over(self, logger: AccessLogger, entry: Entry) -> None:
        record = record_of(logger, logger.shape, entry)
        if record is None or logger.silent:
            return
        try:
            for handler in logger.own:
                if record.levelno >= handler.level:
                    handler.handle(record)
        except Exception:
            self._fails(f"a handler of {logger.name}")

    def _fails(self, what: str) -> None:
        """Log an exception of the application's, once: the request is answered, and has its line."""
        if what not in self._failed:
            self._failed.add(what)
            _LOG.exception("%s failed; its record is passed over", what)

    def _tell(self, say: Callable[[str], object]) -> None:
        target, quiet = self.target, next((each for each in self.loggers if each.silent), None)
        back = f"MOORING_ACCESS_LOG={self.setting} brings mooring's own lines back"
        text = ""
        if quiet is not None and not self.insists:
            text = f"the application has silenced {quiet.name}, so there is no access log: {back}"
        elif target is not None and not target.marked and not self.insists:
            text = f"the access log goes to the application's own handlers of {target.name}: {back}"
        elif target is not None:
            text = f"the application's handlers of {target.name} get the access log too"
        if text and text not in self._told:
            self._told.add(text)
            say(text)


watched = AccessLog()


def watch(shapes: Mapping[str, Shape], servers: Iterable[str], *, insists: bool, setting: str) -> None:
    """Watch the loggers with these names; `servers` are the first parts of the names of servers' modules."""
    loggers = []
    for name, shape in shapes.items():
        logger = logging.getLogger(name)
        if type(logger) is logging.Logger:
            logger.propagate = False
            logger.handlers = [_MARK]
            logger.__class__ = AccessLogger
        if isinstance(logger, AccessLogger):
            vars(logger)["shape"] = shape
            logger.filters, logger.handlers = logger.filters, logger.handlers
            loggers.append(logger)
    watched.loggers, watched.servers = tuple(loggers), frozenset(servers)
    watched.insists, watched.setting = insists, setting


def unwatch() -> None:
    """Leave the loggers alone: their server writes its access log itself."""
    for logger in watched.loggers:
        handlers = [each for each in logger.handlers if each is not _MARK]
        object.__setattr__(logger, "__class__", logging.Logger)
        logger.handlers = handlers
    watched.loggers = ()


def engine_first(name: str) -> None:
    """Prefer the handlers of the logger `name`, the engine's own."""
    watched.loggers = tuple(sorted(watched.loggers, key=lambda each: each.name != name))


class AccessLogger(logging.Logger):
    """An access logger that notices what the application sets on it."""

    shape: Shape

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _WATCHED:
            super().__setattr__(name, value)
            return
        caller = _caller()
        if name != "level" and caller.partition(".")[0] in watched.servers:
            return  # a server without its access log takes the handlers away, say
        if name == "disabled" and value and caller == "logging.config":
            return
        super().__setattr__(name, _Noticing(value) if isinstance(value, list) else value)
        watched.look()

    def hasHandlers(self) -> bool:  # noqa: N802 (logging's name)
        """As Logger's; False for a server, which would write its own access log."""
        return _caller().partition(".")[0] not in watched.servers and super().hasHandlers()

    @property
    def own(self) -> list[logging.Handler]:
        """The application's handlers."""
        return [each for each in self.handlers if each is not _MARK]

    @property
    def marked(self) -> bool:
        """Whether the handler that stands for mooring's lines is there."""
        return _MARK in self.handlers

    @property
    def silent(self) -> bool:
        """Whether the application wants no access log."""
        return self.disabled or self.level > logging.INFO or not (self.handlers or self.propagate)

    @property
    def touched(self) -> bool:
        """Whether anything is set that matters."""
        return bool(self.filters) or self.silent or bool(self.own)


class _Noticing(list[Any]):
    """The filters or the handlers of an access logger."""

    def append(self, thing: Any, /) -> None:
        super().append(thing)
        watched.look()

    def extend(self, things: Iterable[Any], /) -> None:
        super().extend(things)
        watched.look()

    def insert(self, index: SupportsIndex, thing: Any, /) -> None:
        super().insert(index, thing)
        watched.look()

    def remove(self, thing: Any, /) -> None:
        super().remove(thing)
        watched.look()

    def clear(self) -> None:
        super().clear()
        watched.look()


def _caller() -> str:
    """The name of the module that has called a method of a logger."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))
