"""A worker's stop: by the supervisor's order as by SIGTERM, and what the application hears of it."""

import logging
import os
import signal
import socket
import sys
import threading
from types import SimpleNamespace

import pytest

from mooring.engines.common.stop import StopRequest
from mooring.instrument.drain import DrainState


@pytest.fixture(autouse=True)
def _handlers():
    numbers = signal.SIGTERM, signal.SIGINT
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


KEPT: list[socket.socket] = []


class Stop:
    """A stop, installed as an engine does it; `supervisor` is the other end of the report pipe."""

    def __init__(self):
        self.supervisor, self.worker = socket.socketpair()
        self.left = []
        self.drain = DrainState()
        serving = SimpleNamespace(drain=self.drain, orders=self.worker.fileno(), leaving=self.left.append)
        self.request = StopRequest(10.0, lambda: None)
        self.request.install(serving)
        self.woken = threading.Event()
        self.request.on_request(self.woken.set)

    def order(self):
        self.supervisor.send(b"d")
        assert self.woken.wait(30)


@pytest.fixture
def stop():
    made = Stop()
    yield made
    made.supervisor.close()  # ends the thread
    # A thread that has not begun to read would take the next test's order, if that got the same number.
    KEPT.append(made.worker)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: sys.exit(0)])
def test_the_order_is_heard_whatever_the_handler_is(stop, handler):
    signal.signal(signal.SIGTERM, handler)
    stop.order()
    stop.drain.begin()
    assert stop.request.requested
    assert (stop.drain.asked, stop.drain.unasked, stop.left) == (True, "", [])


def test_the_signal_is_heard_too(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.woken.wait(30)


def test_the_order_wakes_a_main_thread_without_a_loop(stop):
    threading.Timer(0.1, stop.supervisor.send, [b"d"]).start()
    stop.request.wait()
    assert stop.request.requested


def test_a_handler_that_exits_starts_the_stop(stop):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
    stop.request.wait()
    assert stop.drain.unasked == ""


def test_without_a_thread_the_supervisor_learns_that_nobody_listens(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    stop = Stop()
    with pytest.raises(BrokenPipeError):
        stop.supervisor.send(b"d")
    stop.worker.send(b"its own messages still pass")
    assert stop.supervisor.recv(100) == b"its own messages still pass"


def test_the_applications_handlers_are_called_once_each_when_the_drain_begins():
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("from import"))
    stop = Stop()
    ours = signal.getsignal(signal.SIGTERM)

    def chained(number, frame):
        heard.append("later")
        ours(number, frame)

    signal.signal(signal.SIGTERM, chained)
    stop.order()
    assert heard == []  # the thread has not called them
    stop.drain.begin()
    assert heard == ["from import", "later"]


def test_a_handler_that_fails_is_logged_and_the_next_one_called(stop, caplog):
    def fails(number, frame):
        raise ValueError("no luck")

    signal.signal(signal.SIGTERM, fails)
    with caplog.at_level(logging.ERROR, "mooring"):
        stop.drain.begin()
    assert "no luck" in caplog.text


def test_who_looks_for_the_object_behind_the_handler_finds_should_exit(stop):
    server = signal.getsignal(signal.SIGTERM).__self__
    assert server.should_exit is False
    stop.order()
    assert server.should_exit is True


def test_who_sets_should_exit_has_the_worker_leave(stop):
    signal.getsignal(signal.SIGTERM).__self__.should_exit = True
    assert stop.woken.is_set()
    assert stop.left == [stop.drain.unasked] == ["the application has set should_exit"]


def test_who_replaces_uvicorns_handle_exit_hears_the_drain(stop, monkeypatch):
    from uvicorn import Server

    heard, own = [], Server.handle_exit

    def handle_exit(*given):
        heard.append(given[1])
        own(*given)

    monkeypatch.setattr(Server, "handle_exit", handle_exit)
    stop.drain.begin()
    assert heard == [signal.SIGTERM]
