"""What LOGGING_CONF has for uvicorn's access log: its handlers get a record for each request."""

import logging
import threading

import pytest

from mooring.instrument.meter import Lines, Meter
from mooring.instrument.wsgi import wrap_wsgi
from mooring.logs import configuration
from mooring.scoreboard.row import Row

ENTRY = ("9.9.9.9", 5, "GET", "/a?b=1", "1.1", 200, 1, 0.1, "-", "-", "-", "-", None)


class Kept(logging.Handler):
    """Keeps records; without a lock, as two greenlets of one thread pass one."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.then = lambda: None

    def handle(self, record):
        self.records.append((record.getMessage(), record.args))
        then, self.then = self.then, lambda: None
        then()


@pytest.fixture
def handler():
    """The handler of uvicorn's access log."""
    logger, made = logging.getLogger("uvicorn.access"), Kept()
    level = logger.level
    logger.addHandler(made)
    logger.setLevel(logging.INFO)
    yield made
    logger.removeHandler(made)
    logger.setLevel(level)


def test_a_record_has_the_arguments_that_uvicorn_gives(handler):
    line = configuration._form().line
    assert line(ENTRY) == ""
    assert line((*ENTRY[:1], None, *ENTRY[2:])) == ""
    assert line((*ENTRY[:2], None, *ENTRY[3:5], 101, *ENTRY[6:])) == ""
    assert [each for each, _ in handler.records] == [
        '9.9.9.9:5 - "GET /a?b=1 HTTP/1.1" 200',
        '9.9.9.9 - "GET /a?b=1 HTTP/1.1" 200',
        '9.9.9.9:5 - "WebSocket /a?b=1" [accepted]',
    ]
    assert handler.records[0][1] == ("9.9.9.9:5", "GET", "/a?b=1", "1.1", 200)


def test_its_level_counts(handler):
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    assert configuration._form().line(ENTRY) == ""
    assert handler.records == []


def test_a_handler_that_waits_keeps_no_other_request(handler):
    """On gevent all requests are in one thread: what waits for a handler's greenlet would wait for ever."""

    def app(_environ, start_response):
        start_response("200 OK", [])
        return [b"x"]

    call = wrap_wsgi(
        app,
        lambda _: None,
        "",
        Meter(Row(), Lines(configuration._form(), lambda _lines, _now: True)),
    )

    def ask():
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}
        call(environ, lambda *_: None)

    other, ended = threading.Thread(target=ask), []

    def wait():
        other.start()
        other.join(5)
        ended.append(not other.is_alive())

    handler.then = wait
    ask()
    other.join()
    assert ended == [True]
    assert len(handler.records) == 2
