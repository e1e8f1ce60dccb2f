"""The heads of gthread's requests: what the poller tells late, and who has a place among the threads."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from mooring.engines.gunicorn.heads import Heads

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class Worker:
    """Gunicorn's worker, as far as it is used; `threads` has what the threads were given."""

    def __init__(self):
        self.cfg, self.nr_conns = Config(), 0
        self.cfg.set("threads", 2)
        self.poller, self.threads, self.clients = selectors.DefaultSelector(), deque(), []
        settings = SimpleNamespace(head_timeout=20, body_timeout=60, max_head=65536, max_body=0)
        serving = SimpleNamespace(plan=SimpleNamespace(settings=settings), refused=lambda *_: None)
        self.tpool, self.method_queue = SimpleNamespace(submit=self.submit), SimpleNamespace(defer=self.defer)
        self.heads = Heads(self, serving, self.handle, self.handle)

    def submit(self, _handle, conn):
        self.threads.append(conn)
        return SimpleNamespace(add_done_callback=lambda _call: None)

    def defer(self, call, *given):
        call(*given)

    def handle(self, _conn):
        raise AssertionError("called in the main loop")

    def finish_request(self, _conn, _future):
        """Not called here."""

    def connect(self, data):
        """A connection on which `data` was sent: the client's end, and gunicorn's."""
        client, served = socket.socketpair()
        self.clients.append(client)
        client.sendall(data)
        conn = TConn(self.cfg, served, "", "")
        self.heads.enqueue(conn)
        return client, conn

    def events(self):
        """What is to be called, as the poller says now."""
        return [key.data for key, _ in self.poller.select(0)]


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.heads.close()
    for each in (*made.clients, *(conn.sock for conn in made.threads)):
        each.close()
    made.poller.close()


def test_a_late_event_of_a_request_that_has_a_thread_takes_nothing_from_it(worker):
    _, first = worker.connect(POST % 3)
    client, second = worker.connect(POST % 6 + b"abc")
    assert list(worker.threads) == [first]
    client.sendall(b"def")
    events = worker.events()
    worker.heads._finished(first)
    for each in events:
        each(None)
    assert list(worker.threads) == [first, second]
    assert second.sock.recv(9) == b"def"


def test_a_body_that_has_come_leaves_its_place_while_the_application_works(worker):
    _, first = worker.connect(POST % 3)
    _, second = worker.connect(POST % 6 + b"abc")
    upload = SimpleNamespace(ended=False)
    worker.heads.begun(first, upload)
    worker.heads.look_at_places()
    assert list(worker.threads) == [first]
    upload.ended = True
    worker.heads.look_at_places()
    assert list(worker.threads) == [first, second]
    _, third = worker.connect(POST % 3)
    worker.heads._finished(first)  # its place was given away before
    assert list(worker.threads) == [first, second]
    worker.heads._finished(second)
    assert list(worker.threads) == [first, second, third]


def test_a_client_that_expects_to_be_asked_and_leaves_hurts_nobody(worker):
    worker.connect(POST % 3)
    client, served = socket.socketpair()
    conn = TConn(worker.cfg, served, "", "")
    conn.init()
    conn.parser.unreader.unread(
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    )
    client.close()
    worker.nr_conns = 1
    worker.heads.enqueue(conn)
    for each in worker.events():
        each(None)
    assert worker.nr_conns == 0


def test_a_body_that_came_with_its_parsing_leaves_its_place(worker):
    _, first = worker.connect(POST % 3)
    _, second = worker.connect(POST % 6 + b"abc")
    worker.heads.begun(first, None)
    assert list(worker.threads) == [first, second]
