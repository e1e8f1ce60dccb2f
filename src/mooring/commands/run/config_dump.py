"""The JSON object that an older image's configuration file printed at its start (docs/profiles.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from mooring.plan.plan import Plan
from mooring.settings.table import Settings, show

_KEYS: dict[str, Callable[[Settings], Any]] = {
    "loglevel": lambda asked: asked.log_level,
    "workers": lambda asked: asked.workers,
    "bind": lambda asked: show(asked.bind),
    "workers_per_core": lambda asked: asked.workers_per_core,
    "host": lambda asked: asked.host,
    "port": lambda asked: str(asked.port),
    "graceful_timeout": lambda asked: _whole(asked.graceful_timeout),
    "timeout": lambda asked: _whole(asked.timeout),
    "keepalive": lambda asked: _whole(asked.keep_alive),
    "errorlog": lambda asked: asked.error_log,
    "accesslog": lambda asked: asked.access_log,
    "use_max_workers": lambda asked: asked.max_workers or None,
    "worker_class": lambda asked: asked.worker_class,
    "reload": lambda asked: asked.reload,
    "worker_tmp_dir": lambda asked: asked.worker_tmp_dir,
}


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def dump(plan: Plan) -> dict[str, Any]:
    """The object with the profile's keys, in their order; empty without such a profile.

    It shows what the settings ask for, as the images' files do, even where gunicorn's arguments change that.
    """
    return {key: _KEYS[key](plan.asked) for key in plan.profile.dump}


def show_dump(plan: Plan) -> None:
    """Print the object on stdout, if the profile has one and no configuration file of the user is used."""
    if plan.profile.dump and (plan.conf is None or plan.conf.path is None):
        os.write(1, json.dumps(dump(plan)).encode() + b"\n")
