"""The accelerator's WSGI half against what specifies it: the same requests, the same lines, the same row."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wrapping import FileWrapper, environ, hello

from mooring.instrument.meter import Lines, Meter
from mooring.instrument.proxy import wsgi_proxy
from mooring.instrument.request_exit import RequestExitError
from mooring.instrument.request_id import wsgi_identifier
from mooring.instrument.wsgi import wrap_wsgi
from mooring.logs.access.line import formatter
from mooring.scoreboard import accelerator
from mooring.scoreboard.ring import Reader, Rings, writer
from mooring.scoreboard.row import BUCKETS, DURATIONS, HISTOGRAM, Row
from mooring.settings.trusted import parse_trusted

pytestmark = pytest.mark.skipif(accelerator.c is None, reason="mooring was installed without a compiler")

_DATE = re.compile(r"\[\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}\]")
_latin = st.one_of(
    st.sampled_from(["", "/", "/items/7", '/"quoted"', "/a b", "/\\", "/\xc3\xa4", "/\xff\n\x1b[2J", "q=1"]),
    st.text(st.characters(max_codepoint=255), max_size=30),
    st.text(st.characters(max_codepoint=255), min_size=1, max_size=20).map(lambda some: some * 150),
)
_texts = st.one_of(_latin, st.text(max_size=5), st.just("\ud800"))
_environs = st.fixed_dictionaries(
    {
        "REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "POST", "BREW", 'G"ET']),
        "SCRIPT_NAME": st.sampled_from(["", "/root", "/\xe4"]),
        "PATH_INFO": _latin,
        "SERVER_PROTOCOL": st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2"]),
        "wsgi.url_scheme": st.just("http"),
    },
    optional={
        "QUERY_STRING": _texts,
        "RAW_URI": _texts,
        "REQUEST_URI": _texts,
        "REMOTE_ADDR": st.sampled_from(["127.0.0.1", "", "9.9.9.9", "::1", '1.1.1.1 "x"', "\n", "\ud800"]),
        "REMOTE_PORT": st.sampled_from(["5000", "50 00"]),
        "HTTP_USER_AGENT": st.one_of(_texts, st.just("curl/7.88.1")),
        "HTTP_REFERER": _texts,
        "HTTP_X_FORWARDED_FOR": st.sampled_from(["1.2.3.4", "nonsense !", "1.1.1.1, 2.2.2.2"]),
        "HTTP_X_FORWARDED_PROTO": st.sampled_from(["https", "gopher"]),
        "HTTP_X_REQUEST_ID": st.just("given"),
        "wsgi.file_wrapper": st.sampled_from([FileWrapper, None, len]),
    },
)
_statuses = st.sampled_from(
    ["200 OK", "404", "500 Oh", "20", "", "xyz", "1x3 No", "٢٠٠ OK", b"200 OK", "301 Moved\xe4"]
)
_headers = st.sampled_from(
    [[], [("Connection", "keep-alive")], [("X-Request-ID", "own"), ("Content-Length", "7")], ()]
)
_start = st.tuples(st.just("start"), _statuses, _headers, st.booleans())
_parts = st.lists(st.one_of(st.binary(max_size=9), st.sampled_from([b"abc", "text"])), max_size=3)
_acts = st.lists(st.one_of(_start, st.tuples(st.just("write"), st.binary(max_size=5))), max_size=3)
_OK = ("start", "200 OK", [], False)
_apps = st.fixed_dictionaries(
    {
        "acts": st.one_of(st.just([_OK]), st.just([_OK, ("write", b"abc")]), _acts),
        "kind": st.sampled_from(
            ["list", "tuple", "iterator", "generator", "late", "closing", "file", "nothing"]
        ),
        "parts": _parts,
        "raising": st.sampled_from(["", "iteration", "call", "iteration", "close", "exit"]),
    }
)
_hows = st.fixed_dictionaries(
    {
        "form": st.sampled_from(["common", "combined", "uvicorn", "json", ""]),
        "skip": st.booleans(),
        "drains": st.booleans(),
        "ids": st.booleans(),
        "root": st.sampled_from(["", "/root"]),
        "parts": st.sampled_from([9, 0, 1, 9]),
        "write": st.sampled_from([True, True, False]),
        "full": st.booleans(),
    }
)


class _Closing:
    """An iterable whose close() is told."""

    def __init__(self, parts, raising, told):
        self.parts, self.raising, self.told = iter(parts), raising, told

    def __iter__(self):
        return self

    def __next__(self):
        for part in self.parts:
            return part
        if self.raising == "iteration":
            raise LookupError
        raise StopIteration

    def close(self):
        self.told.append("closed")
        if self.raising == "close":
            raise BufferError


def _application(script, told):
    """What does as `script` says; `told` gets what can be seen of it from outside."""

    def act(start_response):
        write = None
        for kind, *what in script["acts"]:
            if kind == "start":
                status, headers, again = what
                error = (ValueError, ValueError("x"), None) if again else None
                write = start_response(status, headers, error) if again else start_response(status, headers)
            elif write is not None:
                told.append(write(what[0]))

    def late(start_response):
        act(start_response)
        yield from script["parts"]
        if script["raising"] == "iteration":
            raise LookupError

    def app(env, start_response):
        if script["kind"] == "late":
            return late(start_response)
        act(start_response)
        if script["raising"] == "call":
            raise LookupError
        if script["raising"] == "exit":
            raise SystemExit(3)
        parts = script["parts"]
        wrapper = env.get("wsgi.file_wrapper")
        return {
            "list": lambda: list(parts),
            "tuple": lambda: tuple(parts),
            "iterator": lambda: iter(parts),
            "generator": lambda: (part for part in parts),
            "closing": lambda: _Closing(parts, script["raising"], told),
            "file": lambda: (
                wrapper(_Closing((), "", told)) if wrapper is FileWrapper else _Closing((), "", told)
            ),
            "nothing": lambda: None,
        }[script["kind"]]()

    return app


def _wanted(path, code):
    return code < 400 and "7" not in path


def _serve(env, script, how):
    """The lines, the row's counts, what the server saw, the environ as it was left."""
    rings, row, told = Rings(), Row(), []
    lines = None
    if how["form"]:
        write = writer(rings.fd, 0, rings.wake)
        lines = Lines(
            formatter(how["form"]), write, (lambda _path, code: code < 400) if how["skip"] else None
        )
        told.append(how["full"] and write(b"x" * (512 * 1024), 0.0))
    meter = Meter(row, lines)
    if how["drains"]:
        meter.drain.begin()
    trusted = parse_trusted(["127.0.0.1"])
    identify = wsgi_identifier("x-request-id" if how["ids"] else None, False, trusted, unix=False)
    env = dict(env)
    if how["ids"] and "HTTP_X_REQUEST_ID" in env:
        env["REMOTE_ADDR"] = "127.0.0.1"  # made ids are random
    believe = wsgi_proxy(trusted, unix=False)
    wsgi = wrap_wsgi(_application(script, told), believe, how["root"], meter, identify)

    def start_response(*args):
        told.append(tuple(map(_seen, args)))
        return told.append if how["write"] else None

    try:
        body = wsgi(env, start_response)
        told.append(type(body).__name__ if isinstance(body, (list, FileWrapper)) else "")
        try:
            if not isinstance(body, FileWrapper):
                told += [part for part, _ in zip(body, range(how["parts"]), strict=False)]
        finally:
            for _ in range(2):
                getattr(body, "close", lambda: None)()
    except Exception as error:
        told.append(type(error).__name__)
    return _found(rings, row, told, env)


def _seen(argument):
    """Ids that were made are random."""
    if isinstance(argument, list):
        return [(name, "made" if len(value) == 32 else value) for name, value in argument]
    return argument if isinstance(argument, (str, tuple)) and not isinstance(argument[:1], tuple) else "error"


def _found(rings, row, told, env):
    rings.give(0)
    reader = Reader(rings.fd)
    reader.indices()
    lines = reader.take(0).decode().lstrip("x")
    lines = re.sub(r' \d+us$|"(time|duration_ms|request_id)":\s*("[^"]*"|[\d.]+)', "", _DATE.sub("", lines))
    counts = row.counts()
    histogram = sum(counts[HISTOGRAM : HISTOGRAM + BUCKETS])
    assert counts[DURATIONS] > 0
    counts[DURATIONS] = 0.0
    rings.close()
    env.pop("HTTP_X_REQUEST_ID", None)
    return lines, counts[:HISTOGRAM], histogram, row.in_flight(0.0), told, env


@settings(max_examples=600, deadline=None)
@given(env=_environs, script=_apps, how=_hows)
def test_requests_are_counted_and_logged_alike(env, script, how):
    fast = _serve(env, script, how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "c", None)
        assert fast == _serve(env, script, how)


@pytest.mark.parametrize("raising", ["", "call", "iteration", "close", "exit"])
@pytest.mark.parametrize("kind", ["list", "iterator", "generator", "late", "closing", "file", "nothing"])
def test_nothing_is_kept_of_a_request(kind, raising):
    """Every object has as many references after a thousand requests as before, without a collection."""
    headers, status, more = [("Content-Length", "5")], "2" + str(kind and "00 OK"), [("x", "y")]
    acts = [("start", status, headers, False), ("write", b"abc"), ("start", status, more, True)]
    app = _application({"acts": acts, "kind": kind, "parts": [b"a", b"b"], "raising": raising}, _Deaf())
    env = environ("/a/b", QUERY_STRING="q", HTTP_USER_AGENT="curl", **{"wsgi.file_wrapper": FileWrapper})
    rings = Rings()
    meter = Meter(Row(), Lines(formatter("common"), writer(rings.fd, 0, rings.wake)))
    believe = wsgi_proxy(parse_trusted(["127.0.0.1"]), unix=False)
    wsgi = wrap_wsgi(app, believe, "", meter)

    def start_response(*_given):
        return start_response

    def serve():
        fresh = dict(env)
        with contextlib.suppress(LookupError, BufferError, RequestExitError, TypeError):
            body = wsgi(fresh, start_response)
            try:
                if not isinstance(body, FileWrapper):
                    list(body)
            finally:
                getattr(body, "close", list)()

    watched = (app, start_response, headers, status, more, wsgi, meter.drain, *env.values())
    serve()
    gc.collect()
    gc.disable()
    try:
        before, blocks = [sys.getrefcount(each) for each in watched], sys.getallocatedblocks()
        for _ in range(1000):
            serve()
        assert [sys.getrefcount(each) for each in watched] == before
        assert sys.getallocatedblocks() - blocks < 500
    finally:
        gc.enable()
    rings.close()


class _Deaf(list):
    def append(self, _told):
        pass


def test_a_cycle_is_collected():
    """An application that keeps its start_response in the environ, or in what it answers."""
    wsgi = wrap_wsgi(_cyclic, lambda _environ: None, "", Meter(Row()))
    kept = []
    for _ in range(50):
        env = environ()
        wsgi(env, lambda *_: None).close()
        wsgi(env, lambda *_: None)
        kept.append(weakref.ref(env["parts"]))
    del env
    gc.collect()
    assert not any(each() for each in kept)


class _Parts:
    def __iter__(self):
        return iter((b"x",))


def _cyclic(env, start_response):
    env["start"] = start_response
    start_response("200 OK", (start_response,))
    parts = _Parts()
    parts.start = start_response
    env["parts"] = parts
    return parts


def test_it_takes_a_requests_arguments_alone():
    wsgi = wrap_wsgi(hello, lambda _environ: None, "", Meter(Row()))
    for given_ in ((), ({},), ({}, len, 1), ([], len)):
        with pytest.raises(TypeError):
            wsgi(*given_)
    with pytest.raises(KeyError, match="REQUEST_METHOD"):
        wsgi({"PATH_INFO": "/"}, len)
    with pytest.raises(TypeError):
        accelerator.c.Wsgi(row=None)
