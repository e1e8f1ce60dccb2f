"""The order to drain: by the report pipe to a worker that reads it, by SIGTERM where none does."""

from __future__ import annotations

import os
import selectors
import signal
import socket
from types import SimpleNamespace

import pytest

from mooring.supervisor import workers
from mooring.supervisor.workers import WorkerHandle, Workers
from mooring.worker.messages import DRAIN


@pytest.fixture
def sent(monkeypatch):
    found = []
    monkeypatch.setattr(workers.process, "send", lambda pid, number: found.append((pid, number)))
    return found


@pytest.fixture
def handle():
    """A worker, and its end of the report pipe."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    plan = SimpleNamespace(has_arbiter=False)
    made = WorkerHandle(1, 0, 1, 4711, ours.detach(), 0.0, plan, report=SimpleNamespace())
    yield made, theirs
    theirs.close()
    if made.pipe >= 0:
        os.close(made.pipe)


@pytest.fixture
def crew():
    made = Workers(None, None, [], selectors.DefaultSelector())
    yield made
    made.close()


def test_a_ready_worker_gets_no_signal(crew, handle, sent):
    worker, theirs = handle
    crew.drain(worker)
    assert theirs.recv(10) == DRAIN
    assert sent == []


def test_a_worker_that_starts_gets_the_signal_too(crew, handle, sent):
    worker, theirs = handle
    worker.report = None
    crew.drain(worker)
    assert theirs.recv(10) == DRAIN
    assert sent == [(4711, signal.SIGTERM)]


def test_a_worker_that_does_not_listen_gets_the_signal(crew, handle, sent):
    worker, theirs = handle
    theirs.shutdown(socket.SHUT_RD)
    crew.drain(worker)
    assert sent == [(4711, signal.SIGTERM)]


def test_an_arbiter_gets_the_signal(crew, handle, sent):
    worker, _ = handle
    worker.plan.has_arbiter = True
    crew.drain(worker)
    assert sent == [(4711, signal.SIGTERM)]


def test_a_worker_that_ends_without_reading_the_order_is_heard_to_the_end(crew, handle):
    worker, theirs = handle
    crew.selector.register(worker.pipe, selectors.EVENT_READ)
    crew.drain(worker)
    theirs.send(b'{"event": "ready"}\n')
    theirs.close()  # with the order unread: the next read of the supervisor's end fails
    assert crew.hear(worker) == [{"event": "ready"}]
    crew.hear(worker)
    assert worker.pipe < 0
