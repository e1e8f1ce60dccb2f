"""A small OTLP collector of the tests' own: HTTP with protobuf, kept in memory.

    with Receiver() as collector:
        app = mooring.run(..., **collector.variables)
        collector.wait_spans(lambda spans: len(spans) == 2)

`hanging=True`: it accepts connections and requests, and answers none. `status`: what it answers.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from harness import PATIENCE, eventually
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVER = 2  # Span.SpanKind.SPAN_KIND_SERVER


class Span(NamedTuple):
    name: str
    kind: int
    trace_id: str
    parent_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str

    @property
    def pid(self) -> int:
        return self.resource["process.pid"]

    @property
    def path(self) -> str:
        return self.attributes.get("http.target") or self.attributes["url.path"]


class Metric(NamedTuple):
    name: str
    resource: dict[str, Any]
    count: int


class Receiver:
    def __init__(self, hanging: bool = False, status: int = 200) -> None:
        self.spans: list[Span] = []
        self.metrics: list[Metric] = []
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._take(self.path, dict(self.headers), body)
                if hanging:
                    receiver._released.wait()
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def variables(self) -> dict[str, str]:
        """Traces only, and soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def wait_spans(self, true: Callable[[list[Span]], Any], timeout: float = PATIENCE) -> list[Span]:
        """All server spans, once something is true of them."""
        eventually(lambda: true(self.server_spans), "those spans", timeout)
        return self.server_spans

    def wait_paths(self, *paths: str) -> list[Span]:
        """The server spans of these paths, once all are there."""
        found = self.wait_spans(lambda spans: {*paths} <= {span.path for span in spans})
        return [span for span in found if span.path in paths]

    @property
    def server_spans(self) -> list[Span]:
        return [span for span in list(self.spans) if span.kind == SERVER]

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.requests.append(path)
        self.headers.append(headers)
        if path == "/v1/traces":
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        elif path == "/v1/metrics":
            self.metrics += _metrics(ExportMetricsServiceRequest.FromString(body))


def _spans(message: Any) -> list[Span]:
    return [
        Span(span.name, span.kind, span.trace_id.hex(), span.parent_span_id.hex(), _values(span.attributes),
             _values(group.resource.attributes), scope.scope.name)
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]  # fmt: skip


def _metrics(message: Any) -> list[Metric]:
    return [
        Metric(metric.name, _values(group.resource.attributes),
               sum(point.count for point in metric.histogram.data_points))
        for group in message.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    ]  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}
