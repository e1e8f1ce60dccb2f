"""The logging configuration that LOGGING_CONF names: a module or a file with the dictionary LOGGING_CONFIG.

Applied in the worker before the application is imported. Where it has a handler for uvicorn's access log,
access lines are records of that logger, with the arguments that uvicorn gives them.
"""

from __future__ import annotations

import importlib
import logging
import logging.config
import os
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mooring.errors import ConfigurationError
from mooring.logs.access.line import formatter
from mooring.logs.access.loggers import watched
from mooring.logs.access.parts import Entry, Format
from mooring.logs.access.records import record_of
from mooring.logs.bridge import Handler

_ACCESS = "uvicorn.access"
_NAME = "LOGGING_CONFIG"

_access: list[Format | None] = [None]


def load(reference: str, folders: Iterable[Path] = ()) -> dict[str, Any]:
    """The dictionary of a module or a .py file. Raises ConfigurationError."""
    sys.path[:0] = added = [str(folder) for folder in folders if str(folder) not in sys.path]
    try:
        if reference.endswith(".py") or os.sep in reference:
            found = runpy.run_path(reference, run_name=Path(reference).stem)
        else:
            found = vars(importlib.import_module(reference))
    except Exception as error:
        why = f"{type(error).__name__}: {error}; expected a module or a .py file with the dictionary {_NAME}"
        raise ConfigurationError(f"logging_conf={reference}: {why}") from None
    finally:
        for folder in added:
            sys.path.remove(folder)
    configuration = found.get(_NAME)
    if not isinstance(configuration, dict):
        raise ConfigurationError(f"logging_conf={reference}: it has no dictionary {_NAME}")
    return configuration


def apply(reference: str, folders: Iterable[Path]) -> None:
    """Configure `logging` as it says. Raises ConfigurationError."""
    configuration = load(reference, folders)
    known = {each.name for each in watched.loggers}
    if known:  # a second time, by gunicorn's logger: the access loggers stand for mooring's own log by now
        named = configuration.get("loggers") or {}
        configuration = {**configuration, "loggers": {k: v for k, v in named.items() if k not in known}}
    try:
        logging.config.dictConfig(configuration)
    except (ValueError, TypeError, AttributeError, ImportError, OSError) as error:
        why = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        raise ConfigurationError(f"logging_conf={reference}: {why}") from None
    if not known:
        _access[0] = _form()


def access_form() -> Format | None:
    """A form whose lines are empty, since the logger has got the record; None: no handler for it."""
    return _access[0]


def _form() -> Format | None:
    """Has the logger as it is now: uvicorn takes its handlers away where it writes no access log itself."""
    configured = logging.getLogger(_ACCESS)
    logger = logging.Logger(_ACCESS, configured.level)
    logger.parent, logger.propagate = configured.parent, configured.propagate
    logger.handlers, logger.filters = list(configured.handlers), list(configured.filters)
    if configured.disabled or not _is_shown(logger):
        return None

    shown = formatter("uvicorn").line

    def line(entry: Entry) -> str:
        record = record_of(logger, "call", entry)
        if record is None:  # a WebSocket's handshake
            logger.info("%s", shown(entry).rstrip("\n"))
        elif logger.isEnabledFor(record.levelno):
            logger.handle(record)
        return ""

    return Format(line)


def _is_shown(logger: logging.Logger) -> bool:
    """Whether a handler that is not mooring's takes the logger's records."""
    found: logging.Logger | None = logger
    while found is not None:
        if any(not isinstance(handler, Handler) for handler in found.handlers):
            return True
        found = found.parent if found.propagate else None
    return False
