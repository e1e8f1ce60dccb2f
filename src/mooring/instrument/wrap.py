"""Puts the instrumentation around an application: for ASGI or WSGI, with what the plan asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mooring.instrument.asgi import wrap_asgi
from mooring.instrument.meter import Meter
from mooring.instrument.proxy import asgi_proxy, wsgi_proxy
from mooring.instrument.request_id import asgi_identifier, wsgi_identifier
from mooring.instrument.wsgi import wrap_wsgi
from mooring.settings.trusted import parse_trusted

if TYPE_CHECKING:
    from mooring.application.model import Application
    from mooring.plan.plan import Plan


def wrap(application: Application, plan: Plan, meter: Meter) -> Callable[..., Any]:
    """The application with mooring around it: a coroutine function for ASGI, a plain function for WSGI."""
    settings = plan.settings
    trusted = parse_trusted(settings.forwarded_allow_ips)
    unix = any(address.kind != "tcp" for address in plan.binds)
    root = settings.root_path.strip("/")
    root = f"/{root}" if root else ""
    header = settings.request_id
    if header == "auto":
        header = "x-request-id" if meter.lines is not None and meter.lines.format.ids else None
    if application.interface == "wsgi":
        believe = wsgi_proxy(trusted, unix=unix)
        named = wsgi_identifier(header, settings.trace_context, trusted, unix=unix)
        return wrap_wsgi(application.call, believe, root, meter, named)
    identify = asgi_identifier(header, settings.trace_context, trusted, unix=unix)
    return wrap_asgi(application.call, asgi_proxy(trusted, unix=unix), root, meter, identify)
