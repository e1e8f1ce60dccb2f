"""WebSockets on every ASGI engine: messages, close codes in both directions, refusal, what the scope says."""

from __future__ import annotations

import json
from socket import SHUT_RDWR
from typing import Any

import pytest
from harness import PATIENCE, eventually
from served import Served
from variants import asgi_only
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def open_socket(served: Served, path: str, **more: Any) -> connect:
    url = served.url.replace("http", "ws", 1) + path
    return connect(url, open_timeout=PATIENCE, close_timeout=PATIENCE, proxy=None, **more)


@asgi_only
def test_text_and_bytes_are_echoed(served: Served):
    with open_socket(served, "/ws", subprotocols=["chat", "other"]) as socket:
        assert socket.subprotocol == "chat"
        for message in ("grüße", b"\x00\xff", "x" * 100_000, b"y" * 100_000, ""):
            socket.send(message)
            assert socket.recv(PATIENCE) == message


@asgi_only
def test_a_fragmented_message_arrives_whole(served: Served):
    with open_socket(served, "/ws") as socket:
        socket.send(["one ", "two ", "three"])
        assert socket.recv(PATIENCE) == "one two three"


@asgi_only
def test_pings_are_answered(served: Served):
    with open_socket(served, "/ws") as socket:
        assert socket.ping().wait(PATIENCE)


@asgi_only
def test_the_applications_close_code_and_reason_reach_the_client(served: Served):
    with open_socket(served, "/close") as socket:
        socket.send("go")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")


@asgi_only
def test_the_clients_close_code_reaches_the_application(served: Served, tmp_path):
    mark = tmp_path / "mark"
    with open_socket(served, f"/ws?mark={mark}") as socket:
        socket.close(1001)
    assert eventually(lambda: mark.exists() and mark.read_text(), "a disconnect") == "1001"


@asgi_only
def test_a_client_that_vanishes_is_a_disconnect_with_1006(served: Served, tmp_path):
    mark = tmp_path / "mark"
    with open_socket(served, f"/ws?mark={mark}") as socket:
        socket.send("x")
        assert socket.recv(PATIENCE) == "x"
        socket.socket.shutdown(SHUT_RDWR)  # no close frame
    assert eventually(lambda: mark.exists() and mark.read_text(), "a disconnect") in {"1005", "1006"}


@asgi_only
def test_a_refused_handshake_is_a_403(served: Served):
    with pytest.raises(InvalidStatus) as refused, open_socket(served, "/deny"):
        pass
    assert refused.value.response.status_code == 403


@asgi_only
def test_the_scope_is_that_of_the_handshake(served: Served):
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    with open_socket(served, "/gr%C3%BC%C3%9Fe/scope", additional_headers=headers) as socket:
        seen = json.loads(socket.recv(PATIENCE))
    assert (seen["path"], seen["scheme"], seen["root_path"]) == ("/grüße/scope", "wss", "")
    assert seen["client"][0] == "203.0.113.7"


@asgi_only
def test_a_handshake_is_a_line_of_the_access_log(served: Served):
    with open_socket(served, "/scope?logged") as socket:
        socket.recv(PATIENCE)
    assert '"GET /scope?logged HTTP/1.1" 101' in served.app.wait_log("/scope?logged")
