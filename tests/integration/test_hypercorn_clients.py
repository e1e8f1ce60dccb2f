"""Clients of hypercorn that behave: those that leave, and those that ask much."""

from __future__ import annotations

import os
import socket

import h2.config
import h2.connection
import h2.events
import pytest
from harness import eventually


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("worker_class", ["asyncio", "uvloop", "trio"])
def test_a_client_that_leaves_is_forgotten_at_once(mooring, worker_class):
    app = mooring.run(MOORING_ENGINE="hypercorn", WORKER_CLASS=worker_class, WEB_CONCURRENCY=1)
    app.get("/")
    pid = app.status()["workers"][0]["pid"]
    before = descriptors(pid)
    clients = [socket.create_connection(("127.0.0.1", app.port)) for _ in range(20)]
    # the first request's connection may have been among those before, and gone since
    eventually(lambda: descriptors(pid) >= before + 19, "all clients")
    for client in clients:
        client.close()
    eventually(lambda: descriptors(pid) <= before + 1, "their end")
    assert app.get("/").status == 200
    assert app.stop() == 0


@pytest.mark.parametrize("worker_class", ["asyncio", "uvloop", "trio"])
def test_a_client_that_has_only_said_all_it_has_to_say_is_answered(mooring, worker_class):
    app = mooring.run(MOORING_ENGINE="hypercorn", WORKER_CLASS=worker_class, WEB_CONCURRENCY=1)
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = client.recv(65536)
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            answer += data
    assert b"200" in answer
    assert app.stop() == 0


def answered(sock, connection, count):
    """Ask `count` times at once; how many were answered, and the last stream that was, if it says so."""
    streams, last, done = [], None, set()
    for _ in range(count):
        streams.append(connection.get_next_available_stream_id())
        head = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
        connection.send_headers(streams[-1], head, end_stream=True)
    sock.sendall(connection.data_to_send())
    while len(done) < count and last is None:
        data = sock.recv(65536)
        assert data, f"{count - len(done)} have no answer"
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                done.add(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                assert event.error_code == 0
                last = event.last_stream_id
        sock.sendall(connection.data_to_send())
    assert last is None or {each for each in streams if each <= last} <= done
    return len(done), last


@pytest.mark.parametrize("worker_class", ["asyncio", "uvloop", "trio"])
def test_where_a_connection_has_had_its_requests_none_is_lost(mooring, worker_class):
    app = mooring.run(MOORING_ENGINE="hypercorn", WORKER_CLASS=worker_class, WEB_CONCURRENCY=1)
    left = 1200  # hypercorn's keep_alive_max_requests is 1000
    while left > 0:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        with socket.create_connection(("127.0.0.1", app.port), timeout=60) as sock:
            last = None
            while left > 0 and last is None:
                done, last = answered(sock, connection, 50)
                left -= done
    assert app.stop() == 0
