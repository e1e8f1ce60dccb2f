# mypy: disable-error-code=no-untyped-call
"""gunicorn's heartbeat file where there is no folder for it: memory behind a descriptor.

A container that is read-only, without /tmp and /dev/shm, has none; and worker_tmp_dir = "/dev/shm" is what
the older images' configuration says.
"""

from __future__ import annotations

import os
from typing import Any

from gunicorn.workers import base
from gunicorn.workers.workertmp import WorkerTmp

from mooring.system import memory


class Heartbeat(WorkerTmp):
    """A file in gunicorn's folder, if that can be; the arbiter looks at its time."""

    def __init__(self, cfg: Any) -> None:
        umask = os.umask(cfg.umask)
        try:
            super().__init__(cfg)
        except (OSError, RuntimeError):  # not there; read-only or full
            fd = memory.memory("mooring-heartbeat")
            if cfg.uid != os.geteuid() or cfg.gid != os.getegid():
                os.fchown(fd, cfg.uid, cfg.gid)
            self._tmp = os.fdopen(fd, "w+b", 0)
        finally:
            os.umask(umask)


def install() -> None:
    """Make gunicorn's workers use it."""
    base.WorkerTmp = Heartbeat  # type: ignore[attr-defined]
