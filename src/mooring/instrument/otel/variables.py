"""What the standard OTEL_ variables ask for, and what stands in the way of it.

It imports nothing of OpenTelemetry: the supervisor asks here, and so does a worker that may not need it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

INSTALL = "pip install 'mooring[otel]'"
NAME = "mooring"  # among OTEL_PYTHON_DISABLED_INSTRUMENTATIONS: the application sets OpenTelemetry up itself
_SIGNALS = ("TRACES", "METRICS", "LOGS")
_NEEDED = (
    "opentelemetry.sdk",
    "opentelemetry.instrumentation.auto_instrumentation",
    "opentelemetry.instrumentation.asgi",
    "opentelemetry.instrumentation.wsgi",
)


def exporters(environ: Mapping[str, str]) -> dict[str, str]:
    """OTEL_TRACES_EXPORTER and its like, with the values that the variables come to.

    As the specification has it, the default is otlp; but only for a signal that has an endpoint.
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
    """Whether the variables ask for OpenTelemetry, and of mooring."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or NAME in disabled(environ):
        return False
    wanted = any(value.lower() != "none" for value in exporters(environ).values())
    return wanted or bool(environ.get("OTEL_CONFIG_FILE", "").strip())


def warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What stands between the variables and telemetry, as lines for the log; nothing where nobody asked."""
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
    """Whether the packages of the extra are here."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in _NEEDED)
    except (ImportError, ValueError):  # a parent is missing, or half installed
        return False
