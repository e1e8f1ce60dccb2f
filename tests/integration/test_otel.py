"""OpenTelemetry in every worker, by the standard variables, against a receiver of the tests' own."""

from __future__ import annotations

import signal
import socket
import time

import pytest
from harness import ASGI_APP, WSGI_APP, eventually, free_port, read_all
from otlp_receiver import Receiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}

VARIANTS = {
    "uvicorn": (ASGI_APP, {}),
    "granian-asgi": (ASGI_APP, {"MOORING_ENGINE": "granian"}),
    "granian-wsgi": (WSGI_APP, {"MOORING_ENGINE": "granian"}),
    "hypercorn": (ASGI_APP, {"MOORING_ENGINE": "hypercorn"}),
    "hypercorn-trio": (
        ASGI_APP.replace("import asyncio,", "import"),
        {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"},
    ),
    "hypercorn-wsgi": (WSGI_APP, {"MOORING_ENGINE": "hypercorn"}),
    "gunicorn-uvicorn": (ASGI_APP, {"MOORING_ENGINE": "gunicorn"}),
    "gunicorn-gthread": (WSGI_APP, {"MOORING_ENGINE": "gunicorn"}),
    "gunicorn-gevent": (WSGI_APP, {"MOORING_ENGINE": "gunicorn", "MOORING_WORKER_CLASS": "gevent"}),
}


@pytest.fixture
def collector():
    with Receiver() as receiver:
        yield receiver


def workers_of(app, count=2):
    """The pids of this many workers, all of which have answered a request to /pid."""
    pids = set()

    def asked():
        pids.add(int(app.get("/pid").text))
        return len(pids) == count

    eventually(asked, f"an answer of {count} workers")
    return pids


def stop_quickly(app, seconds):
    start = time.monotonic()
    assert app.stop() == 0
    assert time.monotonic() - start < seconds


@pytest.mark.parametrize("name", VARIANTS)
def test_every_worker_reports_and_none_keeps_its_last_spans(mooring, collector, name):
    source, variables = VARIANTS[name]
    app = mooring.run(
        files={"main.py": source},
        workers=2,
        **{**collector.variables, "OTEL_BSP_SCHEDULE_DELAY": 60_000},  # only a worker's end sends them
        OTEL_SERVICE_NAME="shop",
        **variables,
    )
    first = workers_of(app)
    assert app.get("/version?q=1", headers=TRACEPARENT).status == 200
    assert collector.spans == []
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    spans = collector.wait_spans(lambda spans: {span.pid for span in spans} == first)

    assert {span.resource["service.name"] for span in spans} == {"shop"}
    assert len({span.resource["service.instance.id"] for span in spans}) == 2
    assert all(span.attributes["http.method"] == "GET" for span in spans)
    assert all(span.attributes["http.status_code"] == 200 for span in spans)
    assert {span.path.partition("?")[0] for span in spans} == {"/pid", "/version"}
    continued = [span for span in spans if "/version" in span.path]
    assert [(span.trace_id, span.parent_id) for span in continued] == [(TRACE, PARENT)]

    second = workers_of(app)
    assert not first & second
    assert app.stop() == 0
    assert {span.pid for span in collector.server_spans} == first | second
    assert "OpenTelemetry" not in app.stderr


def test_spans_arrive_while_it_serves_and_only_one_for_a_request(mooring, collector):
    app = mooring.run(**collector.variables)
    assert app.get("/nothing").status == 404
    (span,) = collector.wait_paths("/nothing")
    assert span.attributes["http.status_code"] == 404
    assert span.resource["service.name"] == "main"
    assert span.resource["process.pid"] in app.ready()
    app.stop()
    assert len(collector.spans) == 1
    assert set(collector.requests) == {"/v1/traces"}


@pytest.mark.parametrize("source", [ASGI_APP, WSGI_APP], ids=["asgi", "wsgi"])
def test_excluded_urls_and_sampling_are_by_the_standard_variables(mooring, collector, source):
    variables = {
        "OTEL_PYTHON_EXCLUDED_URLS": "/healthz,/ping",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    app = mooring.run(files={"main.py": source}, **collector.variables, **variables)
    app.get("/healthz", headers=TRACEPARENT)
    app.get("/unsampled")
    app.get("/asked", headers=TRACEPARENT)
    app.stop()
    assert [span.path for span in collector.spans] == ["/asked"]


@pytest.mark.parametrize("source", [ASGI_APP, WSGI_APP], ids=["asgi", "wsgi"])
def test_with_trace_context_log_response_and_span_have_one_trace_id(mooring, collector, source):
    app = mooring.run(
        files={"main.py": source},
        MOORING_TRACE_CONTEXT="true",
        MOORING_ACCESS_LOG_FORMAT="json",
        **collector.variables,
    )
    made = app.get("/made").headers["traceresponse"][3:35]
    assert app.get("/given", headers=TRACEPARENT).headers["traceresponse"][3:35] == TRACE
    app.stop()
    assert {span.path: span.trace_id for span in collector.spans} == {"/made": made, "/given": TRACE}
    assert made in app.wait_log('"/made"')
    assert TRACE in app.wait_log('"/given"')


def test_metrics_of_every_worker(mooring, collector):
    variables = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "none"}
    app = mooring.run(workers=2, **{**collector.variables, **variables})
    pids = workers_of(app)
    app.stop()
    durations = [metric for metric in collector.metrics if metric.name == "http.server.duration"]
    assert {metric.resource["process.pid"] for metric in durations} == pids
    assert all(metric.count >= 1 for metric in durations)
    assert set(collector.requests) == {"/v1/metrics"}


FASTAPI = """
from fastapi import FastAPI

app = FastAPI()


@app.get("/items/{number}")
async def item(number: int):
    return {"number": number}
"""


@pytest.mark.parametrize("off", [None, "fastapi"], ids=["instrumentation", "native"])
def test_a_framework_that_is_instrumented_makes_the_only_server_span(mooring, collector, off):
    app = mooring.run(
        files={"main.py": FASTAPI}, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=off, **collector.variables
    )
    assert app.get("/items/7", headers=TRACEPARENT).status == 200
    app.stop()
    (span,) = collector.server_spans
    assert span.attributes["http.route"] == span.name.removeprefix("GET ") == "/items/{number}"
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert ("instrumentation" in span.scope) == (off is None)


def test_a_framework_that_the_application_instruments(mooring, collector):
    by_hand = (
        "\nfrom opentelemetry.instrumentation.fastapi import FastAPIInstrumentor\n"
        "FastAPIInstrumentor.instrument_app(app)\n"
    )
    app = mooring.run(
        files={"main.py": FASTAPI + by_hand},
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="fastapi",
        **collector.variables,
    )
    app.get("/items/7")
    app.stop()
    assert [span.attributes["http.route"] for span in collector.server_spans] == ["/items/{number}"]


LIBRARY = """
class Client:
    def ask(self):
        return "asked"
"""
INSTRUMENTOR = """
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor


class Instrumentor(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return []

    def _instrument(self, **kwargs):
        import database
        ask = database.Client.ask

        def traced(client):
            with trace.get_tracer("database").start_as_current_span("ask"):
                return ask(client)

        database.Client.ask = traced

    def _uninstrument(self, **kwargs):
        pass
"""
SETTLED = """
import os
from database import Client

ask = Client.ask  # bound at import: an instrumentation that comes later is not seen


def app(environ, start_response):
    ask(Client())
    body = repr(sorted(name for name in os.environ if name.startswith("OTEL_"))).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


def test_libraries_are_instrumented_before_the_application_is_imported(mooring, collector):
    files = {
        "main.py": SETTLED,
        "database.py": LIBRARY,
        "instrumentor.py": INSTRUMENTOR,
        "database-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: database\nVersion: 1.0\n",
        "database-1.0.dist-info/entry_points.txt":
            "[opentelemetry_instrumentor]\ndatabase = instrumentor:Instrumentor\n",
    }  # fmt: skip
    app = mooring.run(files=files, PYTHONPATH=str(mooring.folder), **collector.variables)
    assert app.get("/").text == repr(sorted(collector.variables))  # and what is set for the SDK is gone
    collector.wait_paths("/")
    app.stop()
    (query,) = [span for span in collector.spans if span.name == "ask"]
    (server,) = collector.server_spans
    assert query.trace_id == server.trace_id


LISTS = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Stream() if environ["PATH_INFO"] == "/stream" else [b"he", b"llo"]


class Stream:
    def __iter__(self):
        return iter([b"he", b"llo"])

    def close(self):
        print("closed", flush=True)
"""


@pytest.mark.parametrize("engine", ["granian", "hypercorn", "gunicorn"])
def test_wsgi_bodies_are_what_they_were(mooring, collector, engine):
    app = mooring.run(files={"main.py": LISTS}, MOORING_ENGINE=engine, **collector.variables)
    assert app.get("/list").text == "hello"
    assert app.get("/stream").text == "hello"
    app.wait_log("closed")
    assert app.get("/stream", method="HEAD").text == ""
    app.wait_log("closed", count=2)
    collector.wait_spans(lambda spans: len(spans) == 3)
    if engine == "granian":
        assert app.get("/list").headers["content-length"] == "5"
    app.stop()


@pytest.mark.parametrize("name", ["uvicorn", "granian-wsgi", "gunicorn-gthread"])
def test_a_request_that_telemetry_cannot_read_is_served_all_the_same(mooring, collector, name):
    source, variables = VARIANTS[name]
    app = mooring.run(files={"main.py": source}, **collector.variables, **variables)
    for target, agent in ((b"/version?q=%ff", b"\xff\\x"), (b"/version", b"\xff\\N{"), (b"/%ff?%zz", b"x")):
        with app.connect() as sock:
            head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: " + agent
            sock.sendall(head + b"\r\ntraceparent: \xff\\x\r\n\r\n")
            assert read_all(sock).split(b" ")[1] in {b"200", b"404"}
    app.stop()


# -- A collector that is not there ------------------------------------------------------------------------


@pytest.mark.parametrize("hanging", [False, True], ids=["dead", "hanging"])
@pytest.mark.parametrize("name", ["uvicorn", "granian-wsgi", "gunicorn-gthread"])
def test_a_collector_that_does_not_answer_holds_neither_requests_nor_the_stop(mooring, hanging, name):
    source, variables = VARIANTS[name]
    with Receiver(hanging=True) as collector:
        url = collector.url if hanging else f"http://127.0.0.1:{free_port()}"
        app = mooring.run(
            files={"main.py": source},
            workers=2,
            MOORING_GRACEFUL_TIMEOUT=8,
            **{**collector.variables, "OTEL_EXPORTER_OTLP_ENDPOINT": url},
            **variables,
        )
        for _ in range(20):
            start = time.monotonic()
            assert app.get("/").status == 200
            assert time.monotonic() - start < 5  # the exporter itself waits longer
        if hanging:
            eventually(lambda: collector.requests, "an export")
        else:
            app.wait_log("Transient error")
        stop_quickly(app, 6)


def test_a_collector_that_refuses_is_named_once_not_at_each_try(mooring):
    with Receiver(status=503) as collector:
        app = mooring.run(workers=1, MOORING_LOG_FORMAT="json", **collector.variables)
        app.get("/")
        eventually(lambda: len(collector.requests) >= 3, "three tries")
        lines = [line for line in app.stderr.splitlines() if '"logger": "opentelemetry.' in line]
        assert len(lines) == 1
        assert "Transient error Service Unavailable" in lines[0]
        app.stop()


# -- Who asks, and for what -------------------------------------------------------------------------------

LOADED = """
import sys


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    body = b"loaded" if "opentelemetry.sdk" in sys.modules else b"not loaded"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "shop"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "mooring",
        },
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_imported_where_nobody_asks(mooring, variables):
    app = mooring.run(files={"main.py": LOADED}, **variables)
    assert app.get("/").text == "not loaded"
    assert "OTEL" not in app.stderr
    app.stop()


def test_without_the_extra_one_warning_and_it_serves(mooring, collector):
    hidden = (
        "import sys\nsys.modules['opentelemetry.sdk'] = sys.modules['opentelemetry.instrumentation'] = None\n"
    )
    app = mooring.run(
        files={"main.py": ASGI_APP, "site/sitecustomize.py": hidden},
        workers=2,
        PYTHONPATH=str(mooring.folder / "site"),
        **collector.variables,
    )
    workers_of(app)
    assert app.stderr.count("pip install 'mooring[otel]'") == 1
    app.stop()
    assert collector.requests == []


def test_what_the_sdk_refuses_is_one_line_a_worker_and_it_serves(mooring, collector):
    app = mooring.run(OTEL_TRACES_EXPORTER="zipkin", **collector.variables)
    assert app.get("/").status == 200
    line = app.wait_log("OpenTelemetry is off")
    assert "zipkin" in line
    assert "Traceback" not in app.stderr
    app.stop()


def test_check_sends_nothing(mooring, collector):
    source = LOADED + "\nprint('imported, sdk', 'opentelemetry.sdk' in sys.modules)\n"
    app = mooring.start("check", files={"main.py": source}, **collector.variables)
    assert app.wait_exit() == 0
    assert "imported, sdk False" in app.stderr
    assert collector.requests == []


def test_the_port_of_grpc_is_told(mooring):
    app = mooring.run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4317", OTEL_METRICS_EXPORTER="none")
    assert "4318" in app.wait_log("OTEL_EXPORTER_OTLP_ENDPOINT")
    app.stop()


def test_under_opentelemetry_instrument_it_is_not_set_up_twice(mooring, collector):
    from opentelemetry.instrumentation import auto_instrumentation

    folder = auto_instrumentation.__path__[0]
    files = {
        "main.py": ASGI_APP,
        "configurator.py":
            "from opentelemetry.sdk._configuration import _OTelSDKConfigurator\n"
            "class Configurator(_OTelSDKConfigurator):\n    pass\n",
        "distro-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: distro\nVersion: 1.0\n",
        "distro-1.0.dist-info/entry_points.txt":
            "[opentelemetry_configurator]\ndistro = configurator:Configurator\n",
    }  # fmt: skip
    app = mooring.run(
        files=files,
        workers=2,
        PYTHONPATH=f"{folder}:{mooring.folder}",  # what opentelemetry-instrument does
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        **collector.variables,
    )
    workers_of(app)
    assert app.get("/version").status == 200
    collector.wait_paths("/version")
    app.stop()
    assert len([span for span in collector.server_spans if span.path == "/version"]) == 1
    assert "opentelemetry" not in app.stderr.lower()
    assert len({span.resource["service.instance.id"] for span in collector.server_spans}) == 2


def test_a_blackholed_collector_does_not_hold_the_stop(mooring, collector):
    with socket.socket() as full:  # its queue of connections is full: a further one waits
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(2)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        app = mooring.run(
            **{**collector.variables, "OTEL_EXPORTER_OTLP_ENDPOINT": url}, MOORING_GRACEFUL_TIMEOUT=8
        )
        app.get("/")
        stop_quickly(app, 6)
        for each in waiting:
            each.close()
