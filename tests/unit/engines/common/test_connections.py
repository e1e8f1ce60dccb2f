"""What the kernel tells of clients' connections, and what a drain's gate makes of it."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace

import pytest

from mooring.engines.common.connections import Connections, unread
from mooring.engines.common.gate import Gate
from mooring.system.doors import Doors

IDLE = 0.2  # seconds


@pytest.fixture(params=["tcp", "unix"])
def pair(request, tmp_path):
    """A listener, a client's connection to it, and the server's end of that."""
    with socket.socket(socket.AF_INET if request.param == "tcp" else socket.AF_UNIX) as listener:
        listener.bind(("127.0.0.1", 0) if request.param == "tcp" else str(tmp_path / "socket"))
        listener.listen()
        with socket.socket(listener.family) as client:
            client.connect(listener.getsockname())
            with listener.accept()[0] as server:
                yield listener, client, server


def gate(listener):
    settings = SimpleNamespace(drain_idle=IDLE)
    serving = SimpleNamespace(doors=Doors([listener]), plan=SimpleNamespace(settings=settings))
    return Gate(serving, lambda: False)


def test_unread():
    ours, theirs = socket.socketpair()
    with theirs:
        assert not unread(ours.fileno())
        theirs.sendall(b"x")
        assert unread(ours.fileno())
        number = ours.fileno()
        ours.close()
        assert not unread(number)


def test_a_silent_connection_is_left_after_its_time_and_one_that_is_gone_at_once(pair):
    listener, client, _ = pair
    found = gate(listener)
    assert not found.passed()
    time.sleep(IDLE)
    found.passed()
    assert found.passed()  # twice in a row
    client.close()
    if listener.family == socket.AF_INET:  # a unix socket's engine learns it by reading
        assert Connections([listener.getsockname()]).silences() == []


def test_a_request_that_nobody_has_read_yet_is_no_silence(pair):
    """On a busy machine an engine may not come to it for longer than a client may be idle."""
    listener, client, server = pair
    found = gate(listener)
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    time.sleep(IDLE * 2)
    assert not any(found.passed() for _ in range(5))
    assert server.recv(100)
    assert found.passed() or found.passed()
