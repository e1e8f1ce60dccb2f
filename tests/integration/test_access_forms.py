"""The access log's forms and rules, request ids and trace context: the same on every engine."""

from __future__ import annotations

import json
import re

from harness import Starter
from served import Served
from variants import Variant, each_variant
from wire import seen

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
NASTY = 'quo"te back\\slash [31m'


def given(reply, name: str) -> list[str]:
    """What the application saw under that name."""
    return [value for key, value in seen(reply)["headers"] if key.lower() == name]


@each_variant
def test_application_response_and_log_have_one_id_and_one_trace(mooring: Starter, variant: Variant):
    form = "%(s)s %(rid)s %(tid)s %({x-request-id}o)s %({cookie}i)s %(U)s"
    served = Served.start(mooring, variant, MOORING_ACCESS_LOG_FORMAT=form, MOORING_TRACE_CONTEXT="1")
    expected = []
    for headers, kept in (
        ([("X-Request-Id", "mine-1"), ("traceparent", PARENT), ("Cookie", "a=b")], True),
        ([("X-Request-Id", "not, usable"), ("traceparent", "00-what"), ("tracestate", "a=b")], False),
        ([], False),
    ):
        with served.wire() as wire:
            wire.send("/scope?a=b", headers=[*headers, ("Connection", "close")])
            reply = wire.reply()
        [request_id], [context] = given(reply, "x-request-id"), given(reply, "traceparent")
        assert reply.headers["x-request-id"] == request_id
        assert reply.headers["traceresponse"] == context
        assert (request_id == "mine-1", context == PARENT) == (kept, kept)
        assert re.fullmatch(r"mine-1|[0-9a-f]{32}", request_id)
        assert given(reply, "tracestate") == []
        cookie = "(hidden)" if kept else "-"
        expected.append(f"200 {request_id} {context[3:35]} {request_id} {cookie} /scope")
    assert served.app.stop() == 0
    assert served.app.stdout.splitlines() == expected


@each_variant
def test_another_peer_s_id_is_replaced(mooring: Starter, variant: Variant):
    served = Served.start(mooring, variant, FORWARDED_ALLOW_IPS="192.0.2.1", MOORING_REQUEST_ID="X-Trace-Me")
    with served.wire() as wire:
        wire.send("/scope", headers=[("X-Trace-Me", "theirs"), ("Connection", "close")])
        reply = wire.reply()
    [request_id] = given(reply, "x-trace-me")
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)
    assert reply.headers["x-trace-me"] == request_id
    assert "x-request-id" not in reply.headers


@each_variant
def test_json_is_one_object_a_line_whatever_is_sent_and_rules_leave_lines_out(
    mooring: Starter, variant: Variant
):
    rules = {"MOORING_ACCESS_LOG_SKIP": "/health*,404", "MOORING_ACCESS_LOG_SAMPLE": "/cookies=0.5"}
    served = Served.start(mooring, variant, MOORING_ACCESS_LOG_FORMAT="json", **rules)
    for path in ("/scope?q=%22", "/nothing-here", "/healthz", *["/cookies"] * 4, "/raise"):
        with served.wire() as wire:
            wire.send(path, headers=[("User-Agent", NASTY), ("Connection", "close")])
            wire.reply()
    assert served.app.stop() == 0
    lines = [json.loads(line) for line in served.app.stdout.splitlines()]
    assert [(line["path"], line["query"], line["status"]) for line in lines] == [
        ("/scope", "q=%22", 200),
        ("/cookies", None, 200),
        ("/cookies", None, 200),
        ("/raise", None, 500),
    ]
    assert {line["user_agent"] for line in lines} == {NASTY}
    assert all(re.fullmatch(r"[0-9a-f]{32}", line["request_id"]) for line in lines)


def test_bad_settings_are_told_together(mooring: Starter):
    app = mooring.start(
        "run",
        MOORING_ACCESS_LOG_FORMAT="%(zz)s",
        MOORING_ACCESS_LOG_SKIP="/a,nope",
        MOORING_ACCESS_LOG_SAMPLE="2xx=2",
        MOORING_REQUEST_ID="Content-Length",
    )
    assert app.wait_exit() == 2
    [line] = app.stderr.splitlines()
    for part in (
        "%(zz)s is no atom",
        "not 'nope'",
        "not '2xx=2'",
        "MOORING_REQUEST_ID='Content-Length': expected",
    ):
        assert part in line
