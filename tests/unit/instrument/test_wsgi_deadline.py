"""The time limit of a WSGI application's requests: threads of its own, and what becomes of a late answer."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from typing import Any

import pytest

from mooring.instrument.late import RequestTimeoutError
from mooring.instrument.limits import limit
from mooring.scoreboard.row import TIMED_OUT, Row

PATIENCE = 20.0


class Server:
    """A server's side of requests."""

    def __init__(self, application: Any, seconds: float = PATIENCE, threads: int = 8) -> None:
        self.row, self.recycled = Row(), list[str]()
        self.call = limit(
            application, "wsgi", self.row, 0, seconds, threads=threads, recycle=self.recycled.append
        )
        self.said: list[tuple[str, list[Any]]] = []
        self.written = b""

    def start_response(self, status: str, headers: list[Any], exc_info: Any = None) -> Any:
        if exc_info and self.said:
            raise exc_info[1]
        self.said.append((status, headers))

        def write(data: bytes) -> None:
            self.written += data

        return write

    def ask(self, path: str = "/x") -> bytes:
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "RAW_URI": f"{path}?secret",
            "wsgi.multithread": True,
        }
        body = self.call(environ, self.start_response)
        try:
            return b"".join(body)
        finally:
            getattr(body, "close", bool)()


def test_a_list_is_the_servers_own():
    answer = [b"a", b"b"]

    def application(_environ, start_response):
        start_response("200 OK", [("X", "y")])
        return answer

    server = Server(application)
    assert server.call({"REQUEST_METHOD": "GET"}, server.start_response) is answer
    assert server.said == [("200 OK", [("X", "y")])]


def test_all_of_a_request_runs_in_one_thread_and_context():
    seen, variable = [], contextvars.ContextVar("variable", default=0)

    class Body:
        def __iter__(self):
            for number in range(3):
                seen.append((threading.get_ident(), variable.get()))
                yield b"%d" % number

        def close(self):
            seen.append((threading.get_ident(), variable.get()))

    def application(_environ, start_response):
        start_response("200 OK", [])
        variable.set(7)
        seen.append((threading.get_ident(), variable.get()))
        return Body()

    server = Server(application)
    assert server.ask() == b"012"
    assert len(seen) == 5
    assert len(set(seen)) == 1
    assert seen[0] != (threading.get_ident(), 0)
    assert variable.get() == 0
    server.ask()
    assert len({ident for ident, _ in seen}) == 1  # the thread was free again


def test_it_may_begin_with_its_first_part_and_write():
    def application(_environ, start_response):
        write = start_response("200 OK", [])
        write(b"a")
        yield b"b"
        raise ValueError

    server = Server(application)
    with pytest.raises(ValueError):
        server.ask()
    assert server.written == b"a"
    assert server.said == [("200 OK", [])]


def test_an_error_page_may_replace_what_has_not_begun():
    def application(_environ, start_response):
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oh", [], sys.exc_info())
        return [b"error"]

    server = Server(application)
    assert server.ask() == b"error"
    assert [status for status, _ in server.said] == ["500 Oh"]


def test_a_late_answer_is_dropped_and_the_request_named(caplog):
    released, errors, closed = threading.Event(), [], threading.Event()

    class Body(list):  # type: ignore[type-arg]
        def close(self):
            closed.set()

    def application(_environ, start_response):
        released.wait(PATIENCE)
        try:
            start_response("200 OK", [])
        except RequestTimeoutError as error:
            errors.append(str(error))
        return Body([b"late"])

    server = Server(application, 0.1)
    with caplog.at_level(logging.ERROR, "mooring"):
        assert server.ask() == b"504 Gateway Timeout: the application took too long\n"
    (record,) = caplog.records
    assert "GET /x took over 0.1 s: 504" in record.getMessage()
    assert "in application" in record.getMessage()
    assert "secret" not in record.getMessage()
    assert server.row.read(TIMED_OUT) == 1
    released.set()
    assert closed.wait(PATIENCE)
    assert [status for status, _ in server.said] == ["504 Gateway Timeout"]
    assert errors == ["GET /x took over 0.1 s: its answer is dropped"]


def test_a_response_that_has_begun_is_cut():
    released, ended = threading.Event(), threading.Event()

    def application(_environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"begun"
            released.wait(PATIENCE)
        finally:
            ended.set()

    server = Server(application, 0.2)
    with pytest.raises(RequestTimeoutError):
        server.ask()
    released.set()
    assert ended.wait(PATIENCE)  # and not in the server's thread
    assert server.row.read(TIMED_OUT) == 1


def test_where_half_of_the_threads_are_lost_the_worker_is_replaced():
    released = threading.Event()

    def application(_environ, start_response):
        released.wait(PATIENCE)
        start_response("200 OK", [])
        return []

    server = Server(application, 0.05, threads=4)
    server.ask()
    assert server.recycled == []
    server.ask()
    server.ask()
    assert server.recycled == ["2 of 4 threads are lost in requests of over 0.05 s"]
    released.set()


def test_threads_that_come_back_are_not_lost():
    released = [threading.Event() for _ in range(3)]
    ended = [threading.Event() for _ in range(3)]
    turns = iter(range(3))

    class Body(list):  # type: ignore[type-arg]
        def __init__(self, turn):
            self.turn = turn

        def close(self):
            ended[self.turn].set()

    def application(_environ, _start_response):
        turn = next(turns)
        released[turn].wait(PATIENCE)
        return Body(turn)

    server = Server(application, 0.05, threads=4)
    for turn in range(3):
        server.ask()
        released[turn].set()
        assert ended[turn].wait(PATIENCE)
    assert server.recycled == []
