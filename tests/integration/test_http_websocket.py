"""WebSockets on every ASGI engine: messages, close codes in both directions, refusal, what the scope says."""

from __future__ import annotations

import json
from socket import SHUT_RDWR
from typing import Any

import pytest
from harness import PATIENCE, Starter, eventually
from served import Served
from variants import Variant, asgi_only, each_asgi
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


LIMIT = 16 * 2**20  # the default of MOORING_WEBSOCKET_MAX_SIZE


@asgi_only
def test_the_largest_message_by_default_is_16_mib(served: Served, tmp_path):
    for message in ("x" * LIMIT, b"x" * LIMIT):
        with open_socket(served, "/ws", max_size=None, compression=None) as socket:
            socket.send(message)
            assert socket.recv(PATIENCE) == message
    mark = tmp_path / "mark"
    for number, message in enumerate(("x" * (LIMIT + 1), [b"x" * (LIMIT // 2), b"x" * (LIMIT // 2), b"x"])):
        with open_socket(served, f"/ws?mark={mark}{number}", compression=None) as socket:
            assert refusal(socket, message) == 1009
    seen = eventually(lambda: [each for n in "01" if (each := tmp_path / f"mark{n}").exists()][1:], "both")
    assert seen
    assert {(tmp_path / f"mark{n}").read_text() for n in "01"} <= {"1009", "1006"}


def refusal(socket: Any, message: Any) -> int | None:
    """The code with which a message was refused."""
    try:
        socket.send(message)
        socket.recv(PATIENCE)
    except ConnectionClosed as closed:
        return closed.rcvd and closed.rcvd.code
    return None


@each_asgi
def test_a_limit_that_is_set_counts_bytes_of_whole_messages(mooring: Starter, variant: Variant):
    served = Served.start(mooring, variant, MOORING_WEBSOCKET_MAX_SIZE="100000")
    passing = [
        "x" * 100_000,
        b"x" * 100_000,
        "\u00fc" * 50_000,
        [b"x" * 50_000, b"x" * 50_000],
        ["x" * 99_999, "x"],
    ]
    with open_socket(served, "/ws") as socket:
        for message in passing:
            socket.send(message)
            assert len(socket.recv(PATIENCE)) == (100_000 if message != passing[2] else 50_000)
    for message in ("x" * 100_001, b"x" * 5_000_000, "\u00fc" * 50_001, [b"x" * 50_000, b"x" * 50_001]):
        for compression in ("deflate", None):
            with open_socket(served, "/ws", compression=compression) as socket:
                assert refusal(socket, message) == 1009
    line = served.app.wait_log("MOORING_WEBSOCKET_MAX_SIZE")
    assert "more than 100000 bytes" in line
    assert served.app.stop() == 0
    assert served.app.stderr.count("MOORING_WEBSOCKET_MAX_SIZE") == 1
