"""Which requests gunicorn's gthread worker gets at the first look, and which wait at the poller."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from mooring.engines.gunicorn.heads import Heads

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


class Pool:
    """Notes what a thread gets."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def submit(self, _handle: Any, conn: Any) -> Any:
        self.given.append(conn)
        return SimpleNamespace(add_done_callback=lambda _call: None)


class Poller:
    """Notes what waits."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def register(self, sock: Any, _events: int, _call: Any) -> None:
        self.waiting.append(sock)

    def unregister(self, sock: Any) -> None:
        self.waiting.remove(sock)


class Connection(SimpleNamespace):
    """Gunicorn's."""

    __hash__ = object.__hash__


class Setup:
    """One connection, and what reads its heads."""

    def __init__(self) -> None:
        self.pool, self.poller = Pool(), Poller()
        self.worker = SimpleNamespace(
            cfg=Config(),
            tpool=self.pool,
            poller=self.poller,
            nr_conns=1,
            method_queue=SimpleNamespace(defer=print),
            finish_request=None,
            handle=None,
        )
        settings = SimpleNamespace(head_timeout=20.0, body_timeout=60.0, max_head=65536, max_body=0)
        serving: Any = SimpleNamespace(plan=SimpleNamespace(settings=settings), refused=None)
        self.heads = Heads(self.worker, serving, print, print)
        ours, self.client = socket.socketpair()
        self.conn = Connection(
            cfg=self.worker.cfg,
            sock=ours,
            client=("127.0.0.1", 1),
            initialized=False,
            is_http2=False,
            close=ours.close,
        )

    def send(self, data: bytes) -> None:
        self.client.sendall(data)
        self.heads.enqueue(self.conn)


@pytest.fixture
def setup():
    made = Setup()
    yield made
    made.client.close()
    made.conn.sock.close()


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"\r\n",
        HEAD + b"\r\n" + HEAD,
        HEAD + b"content-LENGTH: 3 \r\n\r\nabc",
        HEAD + b"Content-Length:0\r\nX: y\r\n\r\n",
        HEAD + b"X: Content-Length: 9\r\n\r\n",
        HEAD + b"\r\n\nContent-Length: 9\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n" + HEAD + b"\r\n",
    ],
)
def test_a_whole_request_is_given_to_a_thread_at_once(data, setup):
    setup.send(data)
    assert setup.pool.given == [setup.conn]
    assert not setup.poller.waiting
    assert not setup.heads.waits()
    assert setup.conn.parser.unreader.buf.getvalue() == data


@pytest.mark.parametrize(
    "data", [b"\r\n\r\n", b"\r\n", HEAD, HEAD + b"\r", b"\n\r\n\r\n" + HEAD, b"POST / HTTP/1.1\r\n"]
)
def test_what_is_no_whole_head_waits_at_the_poller(data, setup):
    setup.send(data)
    assert not setup.pool.given
    assert setup.poller.waiting == [setup.conn.sock]
    assert setup.heads.waits()


@pytest.mark.parametrize(
    "more", [b"Content-Length: 3\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"]
)
def test_bodies_that_are_not_whole_get_half_of_the_threads(more, setup):
    setup.heads._unfinished[object()] = None  # of the one thread
    setup.send(HEAD + more)
    assert not setup.pool.given
    setup.heads._unfinished.clear()
    setup.heads.look(1e12, 60.0)
    assert setup.pool.given == [setup.conn]


def test_a_connection_that_has_ended_is_closed(setup):
    setup.client.close()
    setup.heads.enqueue(setup.conn)
    assert setup.conn.sock.fileno() == -1
    assert setup.worker.nr_conns == 0
    assert not setup.heads.waits()
