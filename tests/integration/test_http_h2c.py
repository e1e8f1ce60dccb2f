"""HTTP/2 without TLS: a client with prior knowledge (RFC 9113, 3.3) is understood where HTTP/1 is too."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from served import Served
from variants import ALL, HTTP2, served_by


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False


class Connection:
    """A client of one connection with many streams."""

    def __init__(self, sock) -> None:
        self.sock = sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.answers: dict[int, Answer] = {}
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def ask(self, path: str, method: str = "GET", body: bytes = b"") -> int:
        """Send a request, the body as the windows allow; its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "test")]
        self.h2.send_headers(stream, head, end_stream=not body)
        self.flush()
        rest = memoryview(body)
        while rest:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(rest))
            if room:
                self.h2.send_data(stream, bytes(rest[:room]), end_stream=room == len(rest))
                rest = rest[room:]
                self.flush()
            else:
                self.read()
        return stream

    def answer(self, stream: int) -> Answer:
        while not self.answers[stream].ended:
            self.read()
        return self.answers[stream]

    def read(self) -> None:
        data = self.sock.recv(65536)
        assert data, "the server has closed the connection"
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    head = dict(event.headers)
                    self.answers[event.stream_id].status = int(head[":status"])
                    self.answers[event.stream_id].headers = list(event.headers)
                case h2.events.DataReceived():
                    self.answers[event.stream_id].body += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self.answers[event.stream_id].ended = True
                case h2.events.StreamReset():
                    raise AssertionError(f"stream {event.stream_id} was reset: {event.error_code}")
        self.flush()


@pytest.fixture
def client(served: Served):
    with served.app.connect() as sock:
        yield Connection(sock)


@served_by(HTTP2)
def test_requests_are_answered_and_the_application_sees_http_2(served: Served, client: Connection):
    scope = json.loads(client.answer(client.ask("/gr%C3%BC%C3%9Fe/scope?n=1")).body)
    assert (scope["http_version"], scope["path"].encode("latin-1", "ignore") != b"") == ("2", True)
    assert (scope["query"], scope["scheme"]) == ("n=1", "http")
    assert client.answer(client.ask("/nothing-here")).status == 404


@served_by(HTTP2)
def test_a_large_body_goes_up(served: Served, client: Connection):
    body = os.urandom(1024 * 1024)
    assert json.loads(client.answer(client.ask("/digest", "POST", body)).body)["size"] == len(body)


@served_by(HTTP2)
def test_streams_do_not_wait_for_each_other(served: Served, client: Connection, tmp_path):
    gate = tmp_path / "gate"
    slow = client.ask(f"/stream?gate={gate}")
    while client.answers[slow].body != b"first\n":  # comes before the end
        client.read()
    quick = [client.ask("/cookies") for _ in range(10)]
    assert [client.answer(stream).body for stream in quick] == [b"two"] * 10
    assert not client.answers[slow].ended
    gate.touch()
    assert client.answer(slow).body == b"first\nlast\n"


@served_by(HTTP2)
def test_an_exception_is_a_500_and_the_connection_lives_on(served: Served, client: Connection):
    assert client.answer(client.ask("/raise")).status == 500
    assert client.answer(client.ask("/cookies")).body == b"two"


@served_by([variant for variant in ALL if variant not in HTTP2])
def test_the_other_engines_refuse_it_and_close(served: Served):
    with served.app.connect() as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        answer = sock.recv(65536)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert b" 200 " not in answer.partition(b"\r\n")[0]
