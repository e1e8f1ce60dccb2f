# mypy: disable-error-code=no-untyped-call
"""OpenTelemetry in a worker: its own SDK, configured by its own variables.

The SDK's configurator reads the variables for exporters, samplers, propagators and resources. The loader of
`opentelemetry-instrument` instruments libraries, with the instrumentations that are installed. This file adds
the order, a bounded end, and the log. Not for the server spans: spans.py.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.instrumentation.auto_instrumentation import initialize
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from opentelemetry.sdk.trace import TracerProvider

from mooring.instrument.otel import spans, variables
from mooring.logs.bridge import Handler

if TYPE_CHECKING:
    from mooring.application.model import Application
    from mooring.logs.log import Log, LogFiles
    from mooring.plan.plan import Plan

_LONGEST, _SHARE = 2.0, 0.25  # most time for the last export: seconds, and a share of the grace period
_QUIET = 60.0  # seconds in which one kind of message is logged once


class _Configurator(_OTelSDKConfigurator):
    """The SDK's configurator, which must be subclassed to be used."""


class _Seldom(logging.Filter):
    """Passes one record of a kind per minute, and adds how many were held back."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, str(record.msg)), time.monotonic()
        last, held = self._seen.get(key, (-_QUIET, 0))
        if now - last < _QUIET:
            self._seen[key] = (last, held + 1)
            return False
        self._seen[key] = (now, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more like this in between)", ()
        return True


def start(plan: Plan, log: Log, files: LogFiles) -> Callable[[Application], Application]:
    """Start OpenTelemetry, as described in start.py."""
    handler = Handler(log, files)
    handler.addFilter(_Seldom())
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        _set_up(plan, os.environ)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        log.warning(f"OpenTelemetry is off: {text}; mooring brings OTLP over HTTP ({variables.INSTALL})")
        return lambda application: application
    _end_in_time(min(_LONGEST, plan.settings.graceful_timeout * _SHARE))
    return spans.wrap


def _is_on() -> bool:
    """Whether spans are made in this process."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)


def _set_up(plan: Plan, environ: Mapping[str, str]) -> None:
    """Set up providers and instrumentations, unless `opentelemetry-instrument` has done so before."""
    if _is_on():
        return
    own = not any(entry_points(group=f"opentelemetry_{each}") for each in ("distro", "configurator"))
    with _variables(_defaults(str(plan.target), environ, own)):
        if own and environ.get("OTEL_CONFIG_FILE"):
            _Configurator().configure()
        elif own:
            _Configurator().configure(resource_attributes={"process.pid": os.getpid()})
        initialize()


def _defaults(target: str, environ: Mapping[str, str], own: bool) -> dict[str, str]:
    """The variables to set while the SDK reads them: only those that the user has not set.

    If a distribution of OpenTelemetry is installed (`own` is False), it chooses the exporters.
    """
    found: dict[str, str] = {}
    attributes = environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    named = any(each.partition("=")[0].strip() == "service.name" for each in attributes)
    if not named and not environ.get("OTEL_SERVICE_NAME", "").strip():
        found["OTEL_SERVICE_NAME"] = target
    if own:
        found |= variables.exporters(environ)
        if not environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip():
            found["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    return found


@contextlib.contextmanager
def _variables(found: Mapping[str, str]) -> Iterator[None]:
    """Set these variables in the environment for a while; the application gets it as it was before."""
    before = {name: os.environ.get(name) for name in found}
    os.environ.update(found)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_in_time(seconds: float) -> None:
    """When the process ends, export what is left, within `seconds`; the SDK would wait 30 s or more."""
    providers: list[Any] = [
        trace.get_tracer_provider(),
        metrics.get_meter_provider(),
        _logs.get_logger_provider(),
    ]
    ends = [provider.shutdown for provider in providers if hasattr(provider, "shutdown")]
    for end in ends:
        atexit.unregister(end)

    def end_all() -> None:
        deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=_quietly, args=(end,), daemon=True) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    atexit.register(end_all)


def _quietly(end: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):  # the application may have shut it down
        end()
