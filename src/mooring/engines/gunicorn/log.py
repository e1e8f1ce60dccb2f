# mypy: disable-error-code=no-untyped-call
"""gunicorn's log in mooring's form: its records go to the handlers of the logger `mooring`.

If the user's configuration names another file for them, they go there, in mooring's form. A logging
configuration in the user's file is left as it is.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from gunicorn import glogging

from mooring.logs import bridge, configuration

_REFUSED = "Invalid request from ip="
LOG = logging.getLogger("gunicorn.error")  # gunicorn's own name


class Logger(glogging.Logger):
    """Gunicorn's logger, which uses mooring's handler if there is one, and then what LOGGING_CONF says."""

    logging_conf: str | None = None
    folders: tuple[Path, ...] = ()

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then replace the handler by mooring's, or at least its formatter.

        Without a handler of mooring's nothing is replaced: gunicorn's own form looks the same.
        """
        super().setup(cfg)
        for ours in _ours():
            if cfg.errorlog in ("-", "/dev/stderr") or _writes_to(ours, cfg.errorlog):
                self.error_log.handlers[:] = [ours]
            for handler in self.error_log.handlers:
                handler.setFormatter(bridge.Formatter(ours.log))
        if self.logging_conf is not None:
            configuration.apply(self.logging_conf, self.folders)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a warning, but not gunicorn's for each refused request: these have lines at a limited rate."""
        if not str(msg).startswith(_REFUSED):
            super().warning(msg, *args, **kwargs)

    def reopen_files(self) -> None:
        """Reopen mooring's files too, since gunicorn's processes handle SIGUSR1 themselves."""
        super().reopen_files()
        for handler in _ours():
            handler.reopen()


def _ours() -> list[bridge.Handler]:
    handlers = logging.getLogger("mooring").handlers
    return [handler for handler in handlers if isinstance(handler, bridge.Handler)]


def _writes_to(handler: bridge.Handler, path: str) -> bool:
    """Whether this handler writes to the file at `path`."""
    return (os.path.abspath(path), handler.log.fd) in handler.files.opened
