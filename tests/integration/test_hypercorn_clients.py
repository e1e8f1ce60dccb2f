"""Clients of hypercorn that leave without a word take their descriptors with them."""

from __future__ import annotations

import os
import socket

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
