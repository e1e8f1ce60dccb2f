"""What the OTEL_ variables ask for, and what is added to them while the SDK reads them."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys

import pytest
from opentelemetry.util.http import parse_excluded_urls

from mooring.application.model import Application
from mooring.instrument.otel import sdk, spans, variables
from mooring.instrument.wsgi_line import target_of

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": " None "}, False),
        ({"OTEL_CONFIG_FILE": "otel.yaml"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE "}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
        ({**ENDPOINT, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis, mooring"}, False),
        ({**ENDPOINT, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}, True),
        ({**ENDPOINT, **{f"OTEL_{each}_EXPORTER": "none" for each in ("TRACES", "METRICS", "LOGS")}}, False),
    ],
)
def test_who_asks(environ, expected):
    assert variables.asked(environ) is expected


def test_a_signal_without_an_endpoint_is_not_sent_to_a_guessed_one():
    assert set(variables.exporters(ENDPOINT).values()) == {"otlp"}
    found = variables.exporters({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x/v1/metrics"})
    assert found == {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
    }
    assert (
        variables.exporters({**ENDPOINT, "OTEL_LOGS_EXPORTER": "console"})["OTEL_LOGS_EXPORTER"] == "console"
    )


def test_what_the_user_has_set_is_left_alone():
    added = sdk._defaults("shop.main:app", ENDPOINT, own=True)
    assert added["OTEL_SERVICE_NAME"] == "shop.main:app"
    assert added["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    given = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_SERVICE_NAME": "shop"}
    assert set(sdk._defaults("main", given, own=True)) == set(variables.exporters(ENDPOINT))
    named = {**ENDPOINT, "OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name=shop"}
    assert sdk._defaults("main", named, own=False) == {}


def test_the_variables_are_as_before_once_the_sdk_has_read_them(monkeypatch):
    monkeypatch.setenv("OTEL_A", "before")
    monkeypatch.delenv("OTEL_B", raising=False)
    with sdk._variables({"OTEL_A": "now", "OTEL_B": "now"}):
        assert os.environ["OTEL_A"] == os.environ["OTEL_B"] == "now"
    assert os.environ["OTEL_A"] == "before"
    assert "OTEL_B" not in os.environ


def test_one_kind_of_message_is_logged_once_a_minute_with_the_number_held_back(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(sdk.time, "monotonic", lambda: clock[0])
    seldom, passed = sdk._Seldom(), []

    def log(message, *args):
        record = logging.LogRecord("opentelemetry.x", logging.ERROR, "x.py", 1, message, args, None)
        if seldom.filter(record):
            passed.append(record.getMessage())

    for number in range(5):
        log("failed after %s s", number)
    log("another")
    clock[0] += 61
    log("failed after %s s", 9)
    log("another")
    assert passed == [
        "failed after 0 s",
        "another",
        "failed after 9 s (4 more like this in between)",
        "another",
    ]


def test_the_supervisor_imports_none_of_it():
    code = "import mooring.cli, mooring.commands.run.start, sys\n"
    code += "print(*[name for name in sys.modules if 'opentelemetry' in name])"
    environ = {**os.environ, **ENDPOINT}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout.split() == []


def test_a_failing_middleware_is_passed_by_but_the_applications_error_is_its_own(monkeypatch):
    calls = []

    async def application(scope, receive, send):
        calls.append(scope["path"])
        raise ValueError("the application's")

    class Broken:
        def __init__(self, inner, **_):
            self.inner = inner

        async def __call__(self, scope, receive, send):
            if scope["path"] == "/broken":
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "telemetry's")
            await self.inner(scope, receive, send)

    monkeypatch.setattr(spans.asgi, "OpenTelemetryMiddleware", Broken)
    wrapped = spans.wrap_asgi(application, parse_excluded_urls(""))
    for path in ("/", "/broken"):
        with pytest.raises(ValueError, match="the application's"):
            asyncio.run(wrapped({"path": path}, None, None))
    assert calls == ["/", "/broken"]  # once each


@pytest.mark.parametrize("odd", [{}, {"type": "http.response.start"}, {"type": 7, "headers": [None]}])
def test_a_message_that_the_middleware_does_not_take_goes_to_the_engine(odd):
    sent = []

    async def application(scope, receive, send):
        await send(odd)
        await send({"type": "http.response.body"})

    async def send(message):
        sent.append(message)
        if message is odd:
            raise LookupError("the engine's")

    scope = {
        "type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http", "query_string": b"",
        "http_version": "1.1", "server": ("x", 80), "client": None,
    }  # fmt: skip
    wrapped = spans.wrap_asgi(application, parse_excluded_urls(""))
    with pytest.raises(LookupError, match="the engine's"):
        asyncio.run(wrapped(scope, None, send))
    assert sent == [odd]  # once


def test_what_a_wsgi_application_is_given_has_no_trace_of_ours():
    seen = []

    def application(environ, start_response):
        seen.append(dict(environ))
        start_response("200 OK", [])
        return [b"x"]

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/caf\xc3\xa9",
        "QUERY_STRING": "a=1",
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
    }
    wrapped = spans.wrap_wsgi(application, parse_excluded_urls(""))
    assert wrapped(dict(environ), lambda *_: None) == [b"x"]
    assert {name: value for name, value in seen[0].items() if not name.startswith("mooring.")} == environ
    assert target_of(environ) == "/caf%C3%A9?a=1"  # what wsgi.py sets as RAW_URI, and a span shows


@pytest.mark.parametrize("names", ["asgi", "*", "x, asgi"])
def test_the_server_span_can_be_switched_off_alone(monkeypatch, names):
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", names)
    application = Application(lambda scope: None, "asgi", "", "main:app")
    assert spans.wrap(application) is application
