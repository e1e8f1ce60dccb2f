"""A server span for each request, by OpenTelemetry's ASGI and WSGI middleware, unless the framework makes it.

The middleware is inside mooring's own wrapper. Its spans for single ASGI messages are off: two for each
request, and one for each part of a stream, would add nothing to the server span.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.instrumentation import asgi, wsgi
from opentelemetry.util.http import ExcludeList, get_excluded_urls

from mooring.application.model import ASGI, WSGI, Application, Environ, Receive, Scope, Send
from mooring.instrument.otel import variables

_MARK = "_is_instrumented_by_opentelemetry"  # the attribute that framework instrumentations set
_LOG = logging.getLogger("opentelemetry.mooring")

# A key in a scope or environ: the application has been called (on WSGI the value tells whether it returned a
# list).
_BEGUN = "mooring.otel.begun"


def wrap(application: Application) -> Application:
    """The application with a server span around each request; unchanged if it has one already."""
    call = application.call
    if variables.disabled(os.environ) & {application.interface, "*"} or _has_spans(
        call, application.framework
    ):
        return application
    excluded = get_excluded_urls(application.interface.upper())
    if application.interface == "wsgi":
        return application._replace(call=wrap_wsgi(call, excluded))
    return application._replace(call=wrap_asgi(call, excluded))


def _has_spans(call: Any, framework: str) -> bool:
    """Whether the framework is instrumented: by the loader, in the application's own code, or by itself."""
    if isinstance(call, (asgi.OpenTelemetryMiddleware, wsgi.OpenTelemetryMiddleware)):
        return True
    owner = getattr(call, "__self__", call)
    if getattr(owner, _MARK, False) is True:
        return True
    if framework == "fastapi" and importlib.util.find_spec("fastapi.telemetry"):
        return True  # it makes spans itself if there is a provider
    try:
        found = entry_points(group="opentelemetry_instrumentor", name=framework)
        return any(each.load()().is_instrumented_by_opentelemetry for each in found)
    except Exception as error:  # the instrumentation does not know this version of the framework
        _LOG.debug("no instrumentation of %s: %s", framework, error)
        return False


def wrap_asgi(call: ASGI, excluded: ExcludeList) -> ASGI:
    """An ASGI application in the middleware."""

    # A coroutine function: asgiref would take a plain function for an ASGI 2 application.
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        way, scope[_BEGUN] = scope[_BEGUN], True
        await call(scope, receive, way.through(send))

    options: Any = {"excluded_urls": excluded, "exclude_spans": ["receive", "send"]}
    traced = asgi.OpenTelemetryMiddleware(inner, **options)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("type") == "lifespan":
            await call(scope, receive, send)
            return
        scope[_BEGUN] = way = _Way(send)
        try:
            await traced(scope, receive, way.send)
        except Exception:
            if scope.get(_BEGUN) is not way:
                raise
            _LOG.exception("A request goes without a span")
            await call(scope, receive, send)

    return outer


class _Way:
    """A response's messages through the middleware. It raises for one that is not as it should be: such a
    message goes past it, since the engine decides what to do with it.
    """

    __slots__ = ("_engine", "_inside")

    def __init__(self, engine: Send) -> None:
        self._engine = engine
        self._inside = set[int]()  # ids of the messages that are in the middleware

    async def send(self, message: Any) -> None:
        """What the middleware sends to."""
        self._inside.discard(id(message))
        await self._engine(message)

    def through(self, middleware: Send) -> Send:
        """What the application sends to."""

        async def send(message: Any) -> None:
            self._inside.add(id(message))
            try:
                await middleware(message)
            except Exception:
                if id(message) not in self._inside:  # the engine's own
                    raise
                await self._engine(message)
            finally:
                self._inside.discard(id(message))

        return send


def wrap_wsgi(call: WSGI, excluded: ExcludeList) -> WSGI:
    """A WSGI application in the middleware. A list stays a list, since servers give it a Content-Length.

    The span's path is that of RAW_URI, which instrument/wsgi.py has set.
    """

    def inner(environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ[_BEGUN] = False
        body = call(environ, start_response)
        environ[_BEGUN] = isinstance(body, list)
        return body

    traced = wsgi.OpenTelemetryMiddleware(inner)

    def outer(environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if excluded.url_disabled(path):
            return call(environ, start_response)
        try:
            body = traced(environ, start_response)
        except Exception:
            if _BEGUN in environ:
                raise
            _LOG.exception("A request goes without a span")
            return call(environ, start_response)
        return list(body) if environ.pop(_BEGUN) else _Body(body)

    return outer


class _Body:
    """The middleware's generator. It ends span and response only if it has begun: a HEAD begins none."""

    __slots__ = ("_generator",)

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._generator)

    def close(self) -> None:
        """Close the generator; begin it first if nothing was read."""
        if (
            inspect.isgenerator(self._generator)
            and inspect.getgeneratorstate(self._generator) == "GEN_CREATED"
        ):
            next(self._generator, None)
        self._generator.close()
