"""What hypercorn is sent for a WSGI response, by its own code: PEP 3333's start_response, the raw target."""

from __future__ import annotations

import asyncio
import sys

import pytest

from mooring.engines.hypercorn.wsgi import WsgiApplication

HEADERS = [("X-Given", "1")]


def serve(app, **scope):
    """Status and body that hypercorn is sent for a request, or the head's status and the error's type."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    async def spawn(function, *arguments):
        function(*arguments)

    def call_soon(function, *arguments):
        with pytest.raises(StopIteration):
            function(*arguments).send(None)

    made = WsgiApplication(app, None, 1000, lambda spawn: spawn)
    scope = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [],
        "http_version": "1.1", **scope,
    }  # fmt: skip
    error = None
    try:
        asyncio.run(made(scope, receive, send, spawn, call_soon))
    except Exception as found:
        error = type(found)
    starts = [each["status"] for each in sent if each["type"] == "http.response.start"]
    body = b"".join(each["body"] for each in sent if each["type"] == "http.response.body")
    return starts, body if error is None else error


def again(start_response, status="503 Sorry"):
    try:
        raise LookupError
    except LookupError:
        return start_response(status, HEADERS, sys.exc_info())


def test_a_second_start_response_without_an_error_is_one():
    def app(_environ, start_response):
        start_response("200 OK", [])
        start_response("201 Created", [])
        return [b"x"]

    assert serve(app) == ([], AssertionError)


def test_an_error_replaces_a_head_that_is_not_out():
    def app(_environ, start_response):
        def body():
            yield b""
            again(start_response)
            yield b"sorry"

        start_response("200 OK", [])
        return body()

    assert serve(app) == ([503], b"sorry")

    def at_once(_environ, start_response):
        again(start_response)
        return []

    assert serve(at_once) == ([503], b"")


def test_what_was_written_for_a_head_goes_with_it():
    def app(_environ, start_response):
        start_response("200 OK", [])(b"half a page")
        again(start_response)
        return [b"sorry"]

    assert serve(app) == ([503], b"sorry")


def test_the_path_has_the_bytes_that_were_sent():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode("latin-1")]

    assert serve(app, path="/\ufffd\u20ac", raw_path=b"/%FF%e2%82%ac") == ([200], b"/\xff\xe2\x82\xac")


def test_a_cookie_that_was_split_is_one():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{environ['HTTP_COOKIE']} {environ['HTTP_X']}".encode()]

    split = [(b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2"), (b"x", b"2")]
    assert serve(app, headers=split) == ([200], b"a=1; b=2 1,2")


def test_an_error_behind_the_head_is_raised():
    def app(_environ, start_response):
        def body():
            yield b"x"
            again(start_response)

        start_response("200 OK", [])
        return body()

    assert serve(app) == ([200], LookupError)


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
def test_a_body_that_fails_before_its_first_byte_has_no_head(chunks):
    def app(_environ, start_response):
        start_response("200 OK", [])
        yield from chunks
        raise LookupError

    assert serve(app) == ([], LookupError)


def test_what_was_written_comes_first_and_is_not_kept_waiting():
    def app(_environ, start_response):
        def body():
            yield b"more"
            raise LookupError

        start_response("200 OK", [])(b"written")
        return body()

    assert serve(app) == ([200], LookupError)
    assert serve(lambda _environ, start: start("200 OK", [])(b"a") or [b"b"]) == ([200], b"ab")


@pytest.mark.parametrize(
    ("raw", "query", "target"), [(b"/a%2Fb", b"", "/a%2Fb"), (b"/%7e\xff", b"q=%2F", "/%7e\xff?q=%2F")]
)
def test_the_environ_has_the_target_as_it_was_sent(raw, query, target):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["RAW_URI"].encode("latin-1")]

    assert serve(app, raw_path=raw, query_string=query) == ([200], target.encode("latin-1"))
