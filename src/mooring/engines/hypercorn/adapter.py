"""hypercorn on mooring's listeners: HTTP/2 over TLS and h2c, trio, and WSGI applications.

This file chooses the worker class and explains errors. The configuration is in config.py, start and drain
are in on_asyncio.py and on_trio.py. The instrumentation does the access log, X-Forwarded-*, root_path and
metrics.

WSGI bodies are held in memory; hypercorn's limit for them is `wsgi_max_body_size`, 16 MiB by default.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.utils import LifespanTimeoutError

from mooring.application.model import Application
from mooring.engines import Serving
from mooring.engines.common import event_loop
from mooring.engines.common.lifespan import Lifespan
from mooring.engines.common.stop import StopRequest
from mooring.engines.common.websockets import WebSockets
from mooring.engines.hypercorn import h2, http1, streams, websocket
from mooring.engines.hypercorn.config import HypercornJob, configuration
from mooring.engines.hypercorn.limits import Limits
from mooring.engines.hypercorn.wsgi import WsgiApplication
from mooring.errors import ApplicationError, ConfigurationError
from mooring.settings.engines import REGISTRY

if TYPE_CHECKING:
    from mooring.plan.plan import Plan
    from mooring.settings.table import Settings

_log = logging.getLogger("hypercorn.error")


def check(plan: Plan) -> None:
    """Raise ConfigurationError if the worker class is unknown or not installed."""
    name, known = _worker_class(plan.settings), REGISTRY["hypercorn"].worker_classes
    if name not in known:
        raise ConfigurationError(f"worker class {name!r}: hypercorn has {', '.join(known)}")
    if name != "asyncio" and importlib.util.find_spec(name) is None:
        raise ConfigurationError(f"worker class {name} needs {name}: {REGISTRY['hypercorn'].install}")


def serve(serving: Serving) -> None:
    """Serve until drained.

    Raises ApplicationError for a failed startup, ConfigurationError for settings that cannot be used.
    """
    plan = serving.plan
    check(plan)
    stop = StopRequest(plan.settings.graceful_timeout, serving.doors.close)
    stop.install(serving)
    application, name = serving.load(), _worker_class(plan.settings)
    config = configuration(plan)
    limits = Limits(serving, config.websocket_ping_interval)
    http1.install(limits)
    h2.install(limits)
    streams.install(limits.max_body)
    websocket.install()
    websockets = WebSockets(application.call)
    lifespan = Lifespan(websockets if application.interface == "asgi" else _no_lifespan, _log)
    app = _wrapped(application, lifespan, config, name)
    threads = plan.engine_threads if application.interface == "wsgi" else None
    listeners = list(serving.sockets)
    sockets = Sockets(listeners, [], []) if config.ssl_enabled else Sockets([], listeners, [])

    def ready() -> None:
        lifespan.check()  # the trio worker runs on for a moment after a failed startup
        serving.ready()

    job = HypercornJob(serving, app, config, sockets, stop, ready, websockets, threads, limits)
    try:
        if name == "trio":
            import trio

            from mooring.engines.hypercorn import on_trio

            trio.run(on_trio.serve, job)
        else:
            from mooring.engines.hypercorn import on_asyncio

            event_loop.run(on_asyncio.serve(job), event_loop.loop_factory(name), stop, threads)
    except Exception as error:
        _explain(error, lifespan, stop)
    lifespan.check()


def _explain(error: Exception, lifespan: Lifespan, stop: StopRequest) -> None:
    """Raise mooring's error for `error`; during a drain only log it: the drain has ended."""
    lifespan.check()
    if _has(error, LifespanTimeoutError) and not stop.requested:
        raise ApplicationError(
            "the application's lifespan startup did not end within the boot timeout"
        ) from None
    if not stop.requested:
        raise error
    _log.error("hypercorn ended its drain with an error", exc_info=error)


def _has(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kind) is not None
    return isinstance(error, kind)


def _worker_class(settings: Settings) -> str:
    return settings.worker_class or ("uvloop" if settings.loop == "uvloop" else "asyncio")


async def _no_lifespan(scope: Any, receive: Any, send: Any) -> None:
    return


def _wrapped(application: Application, lifespan: Lifespan, config: Config, name: str) -> Any:
    if application.interface == "asgi":
        app: Any = lifespan  # hypercorn has narrower types for messages: a TypedDict for each kind
        return ASGIWrapper(app)
    abandon: Any = lambda spawn: spawn  # noqa: E731
    if name == "trio":
        from mooring.engines.hypercorn.on_trio import abandoned as abandon
    return WsgiApplication(application.call, lifespan, config.wsgi_max_body_size, abandon)
