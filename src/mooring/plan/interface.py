"""The interface that the user wants, by its name or by what serves it. The application is not known yet."""

from __future__ import annotations

from mooring.plan.server_config.find import ServerConf
from mooring.plan.server_config.worker_classes import interface
from mooring.settings import engines
from mooring.settings.resolve import CLI, PROFILE, Resolved


def intended(resolved: Resolved, conf: ServerConf | None = None) -> str:
    """`asgi`, `wsgi`, or `auto` if nothing decides it.

    An engine that serves only one interface decides it. So does a worker class of gunicorn, whether the
    settings or gunicorn's own configuration name it.
    """
    settings = resolved.settings
    if settings.interface != "auto":
        return settings.interface
    brought = conf is not None and conf.kind and resolved.rank("engine") <= PROFILE
    engine = engines.row(conf.kind if conf is not None and brought else settings.engine)
    if len(engine.interfaces) == 1:
        return engine.interfaces[0]
    if not engine.has_arbiter:  # its worker classes serve both, or it has none
        return "auto"
    worker_class = settings.worker_class
    if conf is not None and resolved.rank("worker_class") != CLI:
        worker_class = conf.overrides.get("worker_class", worker_class)
    return interface(worker_class)
