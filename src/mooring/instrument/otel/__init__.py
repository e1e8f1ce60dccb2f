"""OpenTelemetry: a span for each request, where it is asked for."""
