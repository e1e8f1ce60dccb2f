# mypy: disable-error-code=no-untyped-call
"""gunicorn's log, in mooring's form and place: its records go to the handlers of the logger `mooring`.

Where the user's configuration names another file for it, that file has them, in mooring's form; a logging
configuration of its own stands.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from gunicorn import glogging

from mooring.logs import bridge

LOG = logging.getLogger("gunicorn.error")  # gunicorn's own name


class Logger(glogging.Logger):
    """Gunicorn's logger without a handler of its own for mooring's log, once there is one."""

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then swap the handler, or its form; without one of mooring's, gunicorn's
        form is the same.
        """
        super().setup(cfg)
        for ours in _ours():
            if cfg.errorlog in ("-", "/dev/stderr") or _writes_to(ours, cfg.errorlog):
                self.error_log.handlers[:] = [ours]
            for handler in self.error_log.handlers:
                handler.setFormatter(bridge.Formatter(ours.log))

    def reopen_files(self) -> None:
        """Reopen mooring's files with gunicorn's own: its processes take SIGUSR1 themselves."""
        super().reopen_files()
        for handler in _ours():
            handler.reopen()


def _ours() -> list[bridge.Handler]:
    handlers = logging.getLogger("mooring").handlers
    return [handler for handler in handlers if isinstance(handler, bridge.Handler)]


def _writes_to(handler: bridge.Handler, path: str) -> bool:
    """Whether mooring's log is this file."""
    return (os.path.abspath(path), handler.log.fd) in handler.files.opened
