"""A WebSocket handshake that a WSGI application cannot have is said once, with the setting that helps."""

import sys
from types import ModuleType

import pytest
from wrapping import environ, hello

from mooring.application.model import Application
from mooring.instrument import handshake


class Log(list):
    warning = list.append


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setitem(sys.modules, "simple_websocket", ModuleType("simple_websocket"))


def ask(engine, *environs, interface="wsgi"):
    log = Log()
    call = handshake.watched(Application(hello, interface, "", "main:app"), engine, log).call
    for each in environs:
        call(each, lambda *_: None)
    return log


def upgrade(**more):
    return {**environ("/ws"), "HTTP_UPGRADE": "WebSocket", **more}


def test_it_is_said_once_and_names_the_setting(library):
    (text,) = ask("granian", upgrade(), upgrade())
    assert text.startswith("a WebSocket handshake for /ws: granian has no WebSockets for WSGI applications")
    assert "MOORING_ENGINE=gunicorn" in text
    assert "MOORING_WORKER_CLASS=gthread" in ask("gunicorn", upgrade())[0]


def test_nothing_is_said_of_other_requests_and_where_it_works(library):
    assert not ask("granian", environ("/ws"), {**environ("/"), "HTTP_UPGRADE": "h2c"})
    assert not ask("gunicorn", upgrade(**{"gunicorn.socket": object()}))


def test_the_end_of_a_websocket_is_no_failure_and_the_server_hears_of_it(library):
    started = []

    def call(environ, start_response):
        raise StopIteration

    inner = handshake.watched(Application(call, "wsgi", "", "main:app"), "gunicorn", Log()).call
    outer = handshake.ending(inner)
    with pytest.raises(StopIteration):
        outer(upgrade(**{"gunicorn.socket": object()}), lambda status, headers: started.append(status))
    assert started == ["101 Switching Protocols"]
    with pytest.raises(StopIteration):
        inner(environ("/"), lambda *_: None)


def test_an_application_without_such_a_library_is_left_as_it_is(monkeypatch):
    for name in handshake.LIBRARIES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    plain = Application(hello, "wsgi", "", "main:app")
    assert handshake.watched(plain, "granian", Log()) is plain
