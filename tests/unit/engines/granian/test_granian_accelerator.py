"""The accelerator's half of granian's WSGI against what specifies it: the same requests, the same answers."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.engines.granian import wsgi
from mooring.scoreboard import accelerator

pytestmark = pytest.mark.skipif(accelerator.c is None, reason="mooring was installed without a compiler")

_chunks = st.one_of(st.binary(max_size=6), st.sampled_from(["text", None, bytearray(b"abc")]))
_lengths = st.sampled_from(["3", "0", "6", "x", "-1", "\u0663", "1" * 30, ""])
_headers = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["Content-Length", "content-length", "X-More", "Connection", "\xe4"]), _lengths
        ),
        st.just(["Content-Length", "3"]),
    ),
    max_size=2,
)
_statuses = st.sampled_from(
    ["200 OK", "204", "99 What", "xyz", "", "404 Not Found", "2000 OK", "\u0662\u0660\u0660 O"]
)
_acts = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.just("200 OK"), _headers, st.just(False)),
        st.tuples(st.just("start"), _statuses, _headers.map(tuple) | _headers, st.booleans()),
        st.tuples(st.just("write"), st.binary(max_size=3)),
        st.tuples(st.just("read"), st.sampled_from([1, -1])),
    ),
    max_size=4,
)
_scopes = st.fixed_dictionaries(
    {
        "REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "POST"]),
        "SERVER_PROTOCOL": st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2"]),
        "PATH_INFO": st.just("/"),
    },
    optional={
        "HTTP_HOST": st.sampled_from(["", "x"]),
        "CONTENT_LENGTH": st.sampled_from(["0", "4", "", "zz"]),
        "HTTP_TRANSFER_ENCODING": st.just("chunked"),
        "SCRIPT_NAME": st.just("/scope"),
    },
)
_scripts = st.fixed_dictionaries(
    {
        "acts": st.one_of(st.just([("start", "200 OK", [("Content-Length", "3")], False)]), _acts),
        "late": _acts,
        "kind": st.sampled_from(["list", "listed", "tuple", "generator", "closing", "number", "nothing"]),
        "chunks": st.one_of(st.just([b"abc"]), st.just([b"", b"abc"]), st.lists(_chunks, max_size=3)),
        "raising": st.sampled_from(["", "", "call", "iteration", "close", "exit"]),
    }
)


class Protocol:
    """What granian gives for an answer: what it was told, and a stream taken to its end."""

    def __init__(self, told):
        self.told = told

    def response_bytes(self, status, headers, body):
        self.told.append(("bytes", status, list(headers), body))

    def response_iter(self, status, headers, body):
        self.told.append(("iter", status, list(headers)))
        self.told += body


class Closing:
    """An iterable whose close() is told."""

    def __init__(self, chunks, raising, told):
        self.chunks, self.raising, self.told = iter(chunks), raising, told

    def __iter__(self):
        return self.chunks

    def close(self):
        self.told.append("closed")
        if self.raising == "close":
            raise BufferError


class Listed(list):
    """A list whose close() is told."""

    def __init__(self, chunks, raising, told):
        super().__init__(chunks)
        self.raising, self.told = raising, told

    def close(self):
        self.told.append("closed")
        if self.raising == "close":
            raise BufferError


def application(script, told):
    """What does as `script` says; `told` gets what can be seen of it from outside."""

    def act(acts, environ, start_response):
        write = None
        for kind, *what in acts:
            if kind == "start":
                error = (ValueError, ValueError("x"), None) if what[2] else None
                write = start_response(*what[:2], error) if error else start_response(*what[:2])
            elif kind == "read":
                told.append(environ["wsgi.input"].read(*what))
            elif write is not None:
                told.append(write(what[0]))

    def chunks(environ, start_response):
        yield from script["chunks"]
        act(script["late"], environ, start_response)
        if script["raising"] == "iteration":
            raise LookupError

    def app(environ, start_response):
        told.append(sorted((key, str(value)) for key, value in environ.items() if key != "wsgi.input"))
        act(script["acts"], environ, start_response)
        if script["raising"] == "call":
            raise LookupError
        if script["raising"] == "exit":
            raise SystemExit(3)
        if script["kind"] == "list":
            return list(script["chunks"])
        if script["kind"] == "tuple":
            return tuple(script["chunks"])
        if script["kind"] == "listed":
            return Listed(script["chunks"], script["raising"], told)
        if script["kind"] in {"number", "nothing"}:
            return 7 if script["kind"] == "number" else None
        made = chunks(environ, start_response)
        return made if script["kind"] == "generator" else Closing(made, script["raising"], told)

    return app


def serve(scope, script):
    """All that can be seen of a request from outside."""
    told, running = [], set()
    handle = wsgi.handler(application(script, told), running, 2)
    try:
        told.append(handle(Protocol(told), {**scope, "wsgi.input": io.BytesIO(b"body")}))
    except (Exception, SystemExit) as error:
        told += [type(error).__name__, str(error)]
    return told, running


@settings(max_examples=600, deadline=None)
@given(scope=_scopes, script=_scripts)
def test_requests_are_answered_alike(scope, script):
    fast = serve(scope, script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "c", None)
        assert fast == serve(scope, script)


@pytest.fixture(params=["c", "python"])
def way(request, monkeypatch):
    """With the accelerator and without it."""
    if request.param == "python":
        monkeypatch.setattr(accelerator, "c", None)


def answer(result, headers=(), **environ):
    """What granian was told for what an application returned, and how it ended."""
    told, running = [], set()

    def app(_environ, start_response):
        start_response("200 OK", list(headers))
        return result(told) if callable(result) else result

    scope = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO(), **environ}
    try:
        wsgi.handler(app, running, 1)(Protocol(told), scope)
    except Exception as error:
        told.append(type(error))
    assert not running
    return told


def _rows(*chunks, error=None):
    yield from chunks
    if error:
        raise error


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("headers", [(), [("Content-Length", "9")], [("content-length", "0")]])
@pytest.mark.parametrize(
    ("result", "error"),
    [
        (lambda _: None, TypeError),
        (lambda _: _rows(error=LookupError), LookupError),
        (lambda _: _rows(b"", b"", error=LookupError), LookupError),
        (lambda _: _rows(b"", "text"), TypeError),
        (lambda _: _rows(None), TypeError),
        (lambda _: ("text",), TypeError),
    ],
)
def test_a_body_that_fails_before_its_first_byte_has_no_head(result, error, headers):
    assert answer(result, headers) == [error]


@pytest.mark.usefixtures("way")
def test_a_stream_begins_with_its_first_byte():
    assert answer(_rows(b"", b"", b"a", b"", b"b")) == [("iter", 200, []), b"a", b"", b"b"]
    assert answer(_rows(b"", b"")) == [("iter", 200, [])]


@pytest.mark.usefixtures("way")
def test_the_head_may_be_another_until_the_first_byte():
    told, longer, shorter = [], [("Content-Length", "5")], [("Content-Length", "3")]

    def app(_environ, start_response):
        def body():
            try:
                yield b""
                raise LookupError
            except LookupError:
                start_response("503 Sorry", longer, sys.exc_info())
            yield b"sor"
            yield b"ryry"

        start_response("200 OK", shorter)
        return body()

    scope = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO()}
    wsgi.handler(app, set(), 1)(Protocol(told), scope)
    assert told == [("iter", 503, longer), b"sor", b"ry"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", [list, tuple, iter, lambda chunks: _rows(*chunks)])
@pytest.mark.parametrize("chunks", [[b"abcdef"], [b"abc", b"def"], [b"", b"abcd"], [b"ab", b"cd", b"ef"]])
@pytest.mark.parametrize("name", ["Content-Length", "content-length"])
def test_no_more_is_sent_than_was_declared(kind, chunks, name):
    [(how, status, _, *sent), *more] = answer(kind(chunks), [("X-More", "1"), (name, "3")])
    assert status == 200
    assert b"".join([*sent, *more]) == b"abc"
    assert how == "bytes" or kind is not list
    assert b"".join(answer(kind(chunks), [(name, "0")])[0][3:]) == b""


@pytest.mark.usefixtures("way")
def test_what_was_written_for_a_head_goes_with_it():
    told = []

    def app(_environ, start_response):
        start_response("200 OK", [])(b"half a page")
        try:
            raise LookupError
        except LookupError:
            start_response("503 Sorry", [], sys.exc_info())
        return [b"sorry"]

    scope = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO()}
    wsgi.handler(app, set(), 1)(Protocol(told), scope)
    assert told == [("bytes", 503, [], b"sorry")]


class _Refusing(Protocol):
    """Granian's half of an answer whose headers cannot be sent."""

    def response_bytes(self, *_):
        raise BufferError

    response_iter = response_bytes


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("chunks", [[], [b"abc"], [b"a", b"bc"], [b"", b"abc"]])
@pytest.mark.parametrize("headers", [[], [("Content-Length", "3")], [("Content-Length", "2")]])
def test_close_is_called_where_nothing_could_be_sent(chunks, headers, monkeypatch):
    monkeypatch.setitem(globals(), "Protocol", _Refusing)
    assert answer(lambda told: Closing(chunks, "", told), headers) == ["closed", BufferError]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("raising", ["", "close"])
@pytest.mark.parametrize("chunks", [[], [b"abc"], [b"ab", b"c"]])
def test_the_close_of_a_list_is_called(raising, chunks):
    told = answer(lambda told: Listed(chunks, raising, told))
    assert told == ["closed", BufferError if raising else ("bytes", 200, [], b"".join(chunks))]
    assert answer(lambda told: Listed(["text"], "", told)) == ["closed", TypeError]


@pytest.fixture
def silent(monkeypatch):
    """Pytest would keep what is logged."""
    monkeypatch.setattr(logging.getLogger("_granian"), "disabled", True)


class _Deaf(list):
    def append(self, _told):
        pass


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("raising", ["", "call", "iteration", "close", "exit"])
@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "closing", "number"])
@pytest.mark.parametrize("length", ["3", "4"])
def test_nothing_is_kept_of_a_request(kind, raising, length):
    """Every object has as many references after a thousand requests as before, without a collection."""
    headers, status = [("Content-Length", length)], "200 " + kind
    acts = [("start", status, headers, False), ("start", status, headers, True)]
    told = _Deaf()
    app = application(
        {"acts": acts, "late": [], "kind": kind, "chunks": [b"abc", b""], "raising": raising}, told
    )
    body, scope = io.BytesIO(), {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "x"}
    proto, running = Protocol(told), set()
    handle = wsgi.handler(app, running, 2)

    def request():
        with contextlib.suppress(Exception, SystemExit):
            handle(proto, {**scope, "wsgi.input": body})

    watched = (app, headers, status, body, proto, running, handle, wsgi.EMPTY)
    request()
    gc.collect()
    gc.disable()
    try:
        before, blocks = [sys.getrefcount(each) for each in watched], sys.getallocatedblocks()
        for _ in range(1000):
            request()
        assert [sys.getrefcount(each) for each in watched] == before
        assert sys.getallocatedblocks() - blocks < 500
    finally:
        gc.enable()
    assert not running


def test_it_takes_granians_arguments_alone():
    handle = wsgi.handler(lambda _environ, _start: [], set(), 1)
    for given_ in ((), ({},), (None, {}), (None, {}, 1), (None, 7)):
        with pytest.raises((TypeError, KeyError)):
            handle(*given_)
    with pytest.raises(TypeError):
        accelerator.c.Granian(application=None)
