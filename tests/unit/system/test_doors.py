"""A process's listeners, given up: for others in a roll, for good in a stop, with what was queued."""

from __future__ import annotations

import os
import select
import socket

import pytest

from mooring.system.doors import Doors


@pytest.fixture(params=["tcp", "unix"])
def listener(request, tmp_path):
    with socket.socket(socket.AF_INET if request.param == "tcp" else socket.AF_UNIX) as sock:
        sock.bind(("127.0.0.1", 0) if request.param == "tcp" else str(tmp_path / "socket"))
        sock.listen(16)
        sock.setblocking(False)
        yield sock


def connected(name):
    client = socket.socket(socket.AF_INET if isinstance(name, tuple) else socket.AF_UNIX)
    client.connect(name)
    return client


def test_at_the_end_what_is_queued_is_taken_and_newcomers_are_refused(listener):
    doors, name = Doors([listener]), listener.getsockname()
    copy = os.dup(listener.fileno())
    doors.serve()
    number, watch = listener.fileno(), select.epoll()
    watch.register(copy, select.EPOLLIN)
    with connected(name) as client:
        assert watch.poll(1)
        doors._over[0] = 1  # as `leave` does in another process
        doors.close()
        (queued,) = doors.queued()
        assert doors.queued() == []
        with pytest.raises(ConnectionRefusedError):
            connected(name)
        with socket.socket(fileno=queued.fd) as taken:
            taken.sendall(b"x")
            assert client.recv(1) == b"x"
    assert listener.fileno() == number  # an engine may look at it again, and finds nobody
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert doors.names == (name,)
    doors.close()  # does nothing
    watch.close()
    os.close(copy)


def parent_of(listener):
    """Doors whose listener another process holds too: its descriptor there is out of our reach."""
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [listener.fileno()])  # a message in flight holds it
    return Doors([listener]), ours, theirs


@pytest.mark.parametrize(
    ("over", "serves", "lent"), [(False, True, False), (True, False, False), (True, True, True)]
)
def test_else_the_queue_is_left_to_who_else_has_it(listener, over, serves, lent):
    name = listener.getsockname()
    doors, ours, theirs = parent_of(listener)
    if lent:
        doors = Doors([listener], [listener])
    if serves:
        doors.serve()
    doors._over[0] = over
    with connected(name):
        doors.close()
        assert doors.queued() == []
        with connected(name):  # not refused: it is held elsewhere
            _, (fd,), _, _ = socket.recv_fds(theirs, 1, 1)
            with socket.socket(fileno=fd) as held:
                held.accept()[0].close()
                held.accept()[0].close()
    ours.close()
    theirs.close()


def test_an_engines_own_threads_get_time_to_empty_the_queue(listener):
    doors, name = Doors([listener]), listener.getsockname()
    doors.serve()
    doors._over[0] = 1
    with connected(name):
        doors.close_once_empty(0.05)  # nobody accepts here: the time is over
        assert doors.queued() == []
        with pytest.raises(ConnectionRefusedError):
            connected(name)
    assert isinstance(listener.getsockname(), tuple) == isinstance(name, tuple)  # granian asks for it
