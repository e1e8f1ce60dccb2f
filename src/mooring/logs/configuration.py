"""The logging configuration that LOGGING_CONF names: a module or a file with the dictionary LOGGING_CONFIG.

Applied in the worker before the application is imported. Where it has a handler for uvicorn's access log,
access lines are records of that logger, with the arguments that uvicorn gives them.
"""

from __future__ import annotations

import importlib
import logging
import logging.config
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mooring.errors import ConfigurationError
from mooring.logs.access.loggers import watched
from mooring.logs.bridge import Handler

ACCESS, FORM = "uvicorn.access", "uvicorn"
"""The logger of access lines, and the form of the lines that its writer takes (logs/access/line.py)."""
_NAME = "LOGGING_CONFIG"
_LINE = re.compile(r'(.*?) - "(\S+) (.*) HTTP/(\S*)" (\d+)\n?', re.DOTALL)

Write = Callable[[bytes, float], bool]
_access: list[Write | None] = [None]


def load(reference: str, folders: Iterable[Path] = ()) -> dict[str, Any]:
    """The dictionary of a module or a .py file. Raises ConfigurationError."""
    sys.path[:0] = added = [str(folder) for folder in folders if str(folder) not in sys.path]
    try:
        if reference.endswith(".py") or os.sep in reference:
            found = runpy.run_path(reference, run_name=Path(reference).stem)
        else:
            found = vars(importlib.import_module(reference))
    except Exception as error:
        raise ConfigurationError(f"logging_conf={reference}: {type(error).__name__}: {error}") from None
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
        _access[0] = _writer()


def access_writer() -> Write | None:
    """What logs access lines in uvicorn's form, in place of the ring's writer; None: no handler for them."""
    return _access[0]


def _writer() -> Write | None:
    """Has the logger as it is now: uvicorn takes its handlers away where it writes no access log itself."""
    configured = logging.getLogger(ACCESS)
    logger = logging.Logger(ACCESS, configured.level)
    logger.parent, logger.propagate = configured.parent, configured.propagate
    logger.handlers, logger.filters = list(configured.handlers), list(configured.filters)
    if configured.disabled or not _is_shown(logger):
        return None

    def write(lines: bytes, _now: float) -> bool:
        text = lines.decode("utf-8", "replace")
        parts = _LINE.fullmatch(text)
        if parts is None:
            logger.info("%s", text.rstrip("\n"))
        else:
            client, method, target, version, status = parts.groups()
            logger.info('%s - "%s %s HTTP/%s" %d', client, method, target, version, int(status))
        return True

    return write


def _is_shown(logger: logging.Logger) -> bool:
    """Whether a handler that is not mooring's takes the logger's records."""
    found: logging.Logger | None = logger
    while found is not None:
        if any(not isinstance(handler, Handler) for handler in found.handlers):
            return True
        found = found.parent if found.propagate else None
    return False
