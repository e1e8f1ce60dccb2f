"""What the standard OTEL_ variables ask for, and warnings if that cannot work.

It imports nothing of OpenTelemetry, since process 1 uses it, and workers that may not need OpenTelemetry.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

INSTALL = "pip install 'mooring[otel]'"
NAME = "mooring"  # in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS: the application sets up OpenTelemetry itself
_SIGNALS = ("TRACES", "METRICS", "LOGS")
_NEEDED = (
    "opentelemetry.sdk",
    "opentelemetry.instrumentation.auto_instrumentation",
    "opentelemetry.instrumentation.asgi",
    "opentelemetry.instrumentation.wsgi",
)


def exporters(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER, with their values.

    The default is otlp, as in the specification, but only for a signal that has an endpoint; else none.
    """
    found = {}
    for signal in _SIGNALS:
        variable = f"OTEL_{signal}_EXPORTER"
        endpoints = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        default = "otlp" if any(environ.get(each, "").strip() for each in endpoints) else "none"
        found[variable] = environ.get(variable, "").strip() or default
    return found


def disabled(environ: Mapping[str, str]) -> frozenset[str]:
    """The names in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS."""
    names = environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    return frozenset(name.strip() for name in names)


def asked(environ: Mapping[str, str]) -> bool:
    """Whether the variables ask for OpenTelemetry, and mooring is to set it up."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or NAME in disabled(environ):
        return False
    wanted = any(value.lower() != "none" for value in exporters(environ).values())
    return wanted or bool(environ.get("OTEL_CONFIG_FILE", "").strip())


def warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Lines for the log, if the variables ask for telemetry that cannot work."""
    if not asked(environ):
        return ()
    if not installed():
        return (
            f"OTEL_ variables are set, but OpenTelemetry is not installed: {INSTALL}; serving without it",
        )
    endpoint = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip().rstrip("/")
    if endpoint.endswith(":4317") and not environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip():
        return (
            f"OTEL_EXPORTER_OTLP_ENDPOINT: {endpoint} is the port for gRPC, but OTLP goes over HTTP by "
            "default: use port 4318, or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc (pip install "
            "opentelemetry-exporter-otlp-proto-grpc)",
        )
    return ()


def installed() -> bool:
    """Whether the packages of the extra `otel` are installed."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in _NEEDED)
    except (ImportError, ValueError):  # a parent package is missing, or half installed
        return False
