# mypy: disable-error-code=no-untyped-call
"""gunicorn's heartbeat file, in memory (memfd) if no folder can hold it.

A read-only container without /tmp and /dev/shm has no such folder; the older images' configuration says
worker_tmp_dir = "/dev/shm".
"""

from __future__ import annotations

import os
from typing import Any

from gunicorn.workers import base
from gunicorn.workers.workertmp import WorkerTmp

from mooring.system import memfd


class Heartbeat(WorkerTmp):
    """A file in gunicorn's folder if possible, else in memory; the arbiter reads its modification time."""

    def __init__(self, cfg: Any) -> None:
        umask = os.umask(cfg.umask)
        try:
            super().__init__(cfg)
        except (OSError, RuntimeError):  # the folder is missing, read-only or full
            fd = memfd.memory("mooring-heartbeat")
            if cfg.uid != os.geteuid() or cfg.gid != os.getegid():
                os.fchown(fd, cfg.uid, cfg.gid)
            self._tmp = os.fdopen(fd, "w+b", 0)
        finally:
            os.umask(umask)


def install() -> None:
    """Make gunicorn's workers use this heartbeat file."""
    base.WorkerTmp = Heartbeat  # type: ignore[attr-defined]
