"""The interface that the user wants, by name or by what is to serve it; before the application is known."""

from __future__ import annotations

from mooring.plan.server_config.find import ServerConf
from mooring.plan.server_config.worker_classes import interface
from mooring.settings import engines
from mooring.settings.resolve import CLI, PROFILE, Resolved


def intended(resolved: Resolved, conf: ServerConf | None = None) -> str:
    """Asgi, wsgi, or auto where nothing says: an engine that serves one alone says it, and so does a worker
    class of gunicorn, be it of the settings or of gunicorn's own configuration.
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
