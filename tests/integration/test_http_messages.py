"""Requests and answers on every engine: bodies both ways, connections, limits. HTTP/1."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from served import Served
from variants import ALL, everywhere, served_by

MIB = os.urandom(1024 * 1024)
MIB_SEEN = {"size": len(MIB), "sha256": hashlib.sha256(MIB).hexdigest()}


@everywhere
def test_a_body_of_a_mebibyte_arrives_whole(served: Served):
    with served.wire() as wire:
        assert json.loads(wire.ask("/digest", "POST", body=MIB).body) == MIB_SEEN


@everywhere
def test_a_chunked_body_arrives_whole(served: Served):
    with served.wire() as wire:
        wire.send("/digest", "POST", [("Transfer-Encoding", "chunked")])
        for start in range(0, len(MIB), 100_000):
            wire.chunk(MIB[start : start + 100_000])
        wire.chunk(b"")
        assert json.loads(wire.reply().body) == MIB_SEEN


@everywhere
def test_the_body_is_asked_for_where_the_client_expects_that(served: Served):
    with served.wire() as wire:
        wire.send("/digest", "POST", [("Content-Length", "5"), ("Expect", "100-continue")])
        assert wire.reply().status == 100  # before any of the body was sent
        wire.write(b"hello")
        assert json.loads(wire.reply().body)["size"] == 5


@everywhere
def test_an_answer_is_streamed(served: Served, tmp_path):
    gate = tmp_path / "gate"
    with served.wire() as wire:
        wire.send(f"/stream?gate={gate}")
        status, headers = wire.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert wire.next_chunk() == b"first\n"
        gate.touch()  # only now the application goes on
        assert wire.next_chunk() == b"last\n"
        assert wire.next_chunk() == b""


@everywhere
def test_head_is_answered_with_the_headers_of_get_and_no_body(served: Served):
    with served.wire() as wire:
        reply = wire.ask("/cookies", "HEAD")
        assert (reply.status, reply.headers["content-length"]) == (200, "3")
    with served.wire() as wire:
        wire.send("/cookies", "HEAD", [("Connection", "close")])
        assert wire.file.read().partition(b"\r\n\r\n")[2] == b""


@everywhere
def test_repeated_headers_of_an_answer_stay_apart_and_in_order(served: Served):
    with served.wire() as wire:
        assert wire.ask("/cookies").all("set-cookie") == ["a=1", "b=2"]


@served_by([variant for variant in ALL if variant.keeps_alive])
def test_a_connection_is_kept_and_used_again(served: Served):
    with served.wire() as wire:
        for _ in range(3):
            assert wire.ask("/cookies").body == b"two"


@served_by([variant for variant in ALL if not variant.keeps_alive])
def test_gunicorns_sync_worker_says_that_it_closes_each_connection(served: Served):
    with served.wire() as wire:
        assert wire.ask("/cookies").headers["connection"] == "close"
        assert wire.rest() == b""


@served_by([variant for variant in ALL if variant.keeps_alive])
def test_pipelined_requests_are_answered_in_order(served: Served):
    one = b"GET /scope?n=%d HTTP/1.1\r\nHost: test\r\n\r\n"
    with served.wire() as wire:
        wire.write(one % 1 + one % 2 + one % 3)
        assert [json.loads(wire.reply().body)["query"] for _ in range(3)] == ["n=1", "n=2", "n=3"]


@everywhere
def test_connection_close_is_honoured(served: Served):
    with served.wire() as wire:
        assert wire.ask("/cookies", headers=[("Connection", "close")]).body == b"two"
        assert wire.rest() == b""


@everywhere
def test_http_1_0_is_answered_and_closed(served: Served):
    with served.wire() as wire:
        wire.write(b"GET /scope HTTP/1.0\r\n\r\n")
        status, headers = wire.head()
        assert (status, headers.get("transfer-encoding")) == (200, None)
        assert json.loads(wire.file.read())["http_version"] == "1.0"


@everywhere
def test_http_1_0_gets_a_stream_without_chunks(served: Served, tmp_path):
    (tmp_path / "gate").touch()
    with served.wire() as wire:
        wire.write(f"GET /stream?gate={tmp_path / 'gate'} HTTP/1.0\r\n\r\n".encode())
        status, headers = wire.head()
        assert (status, headers.get("transfer-encoding")) == (200, None)
        assert wire.file.read() == b"first\nlast\n"


@everywhere
def test_not_found_is_the_applications(served: Served):
    with served.wire() as wire:
        reply = wire.ask("/nothing-here")
        assert (reply.status, reply.body) == (404, b"nothing here")


@everywhere
def test_an_exception_is_a_500_with_its_traceback_in_the_log(served: Served):
    with served.wire() as wire:
        pid = json.loads(wire.ask("/scope").body)["pid"]
    with served.wire() as wire:
        reply = wire.ask("/raise")
    assert reply.status == 500
    assert b"the application raised" not in reply.body
    served.app.wait_log("ValueError: the application raised")
    served.app.wait_log("in _raise")
    with served.wire() as wire:
        assert json.loads(wire.ask("/scope").body)["pid"] == pid  # the same worker keeps serving


@everywhere
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_any_method_arrives(served: Served, method: str):
    with served.wire() as wire:
        assert json.loads(wire.ask("/scope", method).body)["method"] == method
