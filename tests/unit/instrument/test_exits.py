"""A request that raises SystemExit and its like fails alone: what passes the wrapper is an ordinary error."""

import asyncio

import pytest
from wrapping import Body, Server, call, environ, http, streaming, websocket, wrapped

from mooring.instrument import request_exit
from mooring.instrument.meter import Meter
from mooring.instrument.request_exit import RequestExitError
from mooring.scoreboard.row import RAISED, Row

pytestmark = pytest.mark.usefixtures("way")

ENDS = (SystemExit(2), KeyboardInterrupt(), GeneratorExit())


def raising(error):
    async def app(scope, receive, send):
        raise error

    return app


@pytest.mark.parametrize("error", ENDS, ids=repr)
def test_asgi(error):
    row = Row()
    with pytest.raises(RequestExitError, match="in GET /a b: ") as found:
        call(wrapped(raising(error), meter=Meter(row)), http("/a b", query_string=b"secret"))
    assert found.value.__cause__ is error
    assert "secret" not in str(found.value)
    assert row.read(RAISED) == 1


def test_a_websocket():
    with pytest.raises(RequestExitError, match="WEBSOCKET /ws"):
        call(wrapped(raising(SystemExit(2))), websocket())


def test_in_a_group_of_exceptions():
    group = BaseExceptionGroup("tasks", [ValueError(), BaseExceptionGroup("more", [SystemExit(3)])])
    with pytest.raises(RequestExitError, match=r"SystemExit\(3\)"):
        call(wrapped(raising(group)), http())


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()], ids=repr)
def test_other_errors_pass(error):
    with pytest.raises(type(error)):
        call(wrapped(raising(error)), http())


def test_a_coroutine_that_is_closed_is_no_failure():
    async def app(scope, receive, send):
        await asyncio.sleep(10)

    running = wrapped(app)(http(), None, None)
    with pytest.raises(RuntimeError):  # there is no loop
        running.send(None)

    async def waiting(scope, receive, send):
        await receive()

    class Never:
        def __await__(self):
            yield

    running = wrapped(waiting)(http(), Never, None)
    running.send(None)
    running.close()  # raises what the coroutine raises


@pytest.mark.parametrize("error", ENDS, ids=repr)
def test_wsgi(error):
    def app(environ, start_response):
        raise error

    row = Row()
    with pytest.raises(RequestExitError, match="in GET /path: ") as found:
        Server().run(wrapped(app, "wsgi", meter=Meter(row)), environ("/path", QUERY_STRING="secret"))
    assert found.value.__cause__ is error
    assert "secret" not in str(found.value)
    assert row.read(RAISED) == 1


@pytest.mark.parametrize("error", ENDS, ids=repr)
@pytest.mark.parametrize("before", [(), (b"x",)], ids=["first", "later"])
def test_a_wsgi_stream(error, before):
    row = Row()
    with pytest.raises(RequestExitError):
        Server().run(wrapped(streaming(Body(*before, fail=error)), "wsgi", meter=Meter(row)), environ())
    assert row.read(RAISED) == (not before)


def test_the_close_of_a_wsgi_stream():
    class Closing(Body):
        def close(self):
            raise SystemExit(4)

    with pytest.raises(RequestExitError, match=r"SystemExit\(4\)"):
        Server().run(wrapped(streaming(Closing(b"x")), "wsgi"), environ())


def test_what_is_no_end_of_the_process_passes_on_wsgi():
    class Killed(BaseException):
        """As gevent's GreenletExit."""

    def app(environ, start_response):
        raise Killed

    with pytest.raises(Killed):
        Server().run(wrapped(app, "wsgi"), environ())
    with pytest.raises(Killed):
        Server().run(wrapped(streaming(Body(fail=Killed())), "wsgi"), environ())


def test_an_engine_that_leaves_by_systemexit_may(monkeypatch):
    monkeypatch.setattr(request_exit, "_passing", False)
    request_exit.let_pass()
    with pytest.raises(SystemExit):
        call(wrapped(raising(SystemExit(1))), http())
