"""The wrapper, called as engines call it: what it passes on, and its lines. ASGI first, then WSGI.

What it counts: test_counts.py.
"""

import asyncio
import inspect
import io

import pytest
from wrapping import (
    Body,
    FileWrapper,
    Server,
    call,
    environ,
    hello,
    http,
    ok,
    only,
    streaming,
    websocket,
    wrapped,
)
from wrapping import (
    Log as Lines,
)

pytestmark = pytest.mark.usefixtures("way")


def test_engines_see_a_coroutine_function_for_asgi_and_none_for_wsgi():
    """Uvicorn and hypercorn tell the interfaces apart by this."""
    for log in (None, Lines()):
        assert inspect.iscoroutinefunction(wrapped(ok, log=log))
        assert not inspect.iscoroutinefunction(wrapped(hello, "wsgi", log=log))


def test_a_request_makes_one_line():
    lines = Lines()
    sent = call(wrapped(ok, log=lines), http("/a", query_string=b"q=1"))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert lines == ['9.9.9.9:5000 - "GET /a?q=1 HTTP/1.1" 200\n']


def test_the_scope_receive_and_messages_are_the_engines_own():
    seen = []
    start = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(scope, receive, send):
        seen.extend((scope, receive))
        await send(start)
        await send({"type": "http.response.body"})

    def receive():
        """Granian's is no coroutine function."""

    for log in (None, Lines()):
        seen.clear()
        scope = http()
        before = dict(scope)
        sent = call(wrapped(app, log=log), scope, receive)
        assert seen[0] is scope
        assert seen[1] is receive
        assert sent[0] is start
        assert scope == before


def test_a_send_that_returns_a_future_is_fine():
    """Granian's is no coroutine function either."""

    async def run():
        def send(message):
            future = asyncio.get_running_loop().create_future()
            future.set_result(None)
            return future

        await wrapped(ok, log=lines)(http(), None, send)

    lines = Lines()
    asyncio.run(run())
    assert len(lines) == 1


def test_what_the_line_knows():
    lines = Lines("all")
    headers = [(b"user-agent", b'curl "8"\n'), (b"referer", b"http://x/\xff")]
    call(wrapped(ok, log=lines), http(headers=headers, http_version="2", method="POST"))
    host, port, method, target, version, status, size, seconds, referer, agent, *_ = only(lines)
    assert (host, port, method, target, version, status, size) == ("9.9.9.9", 5000, "POST", "/", "2", 200, 5)
    assert 0 <= seconds < 1
    assert referer == r"http://x/\xff"
    assert agent == r"curl \"8\"\n"


def test_streams_are_counted_and_the_line_comes_with_the_last_part():
    lines = Lines("all")

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        assert not lines
        await send({"type": "http.response.body"})
        assert len(lines) == 1
        await asyncio.sleep(0)  # a background task

    call(wrapped(app, log=lines), http())
    assert only(lines)[6] == 15


def test_a_head_request_has_no_bytes():
    lines = Lines("all")
    call(wrapped(ok, log=lines), http(method="HEAD"))
    assert only(lines)[6] == 0


def test_a_file_that_the_engine_sends_is_counted(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    for name, size in (("file", 1000), ("gone", 0)):
        lines = Lines("all")

        async def app(scope, receive, send, path=str(tmp_path / name)):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.pathsend", "path": path})

        call(wrapped(app, log=lines), http())
        assert only(lines)[5:7] == (200, size)


def test_hypercorns_form_shows_the_declared_size():
    lines = Lines("hypercorn")
    headers = [(b"Content-Length", b"5")]

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    call(wrapped(app, log=lines), http("/a", query_string=b"secret"))
    headers.clear()
    call(wrapped(app, log=lines), http())
    assert lines[0].endswith('"GET /a 1.1" 200 5 "-" "-"\n')
    assert lines[1].endswith('"GET / 1.1" 200 - "-" "-"\n')


def test_an_exception_is_the_engines_and_the_line_says_500():
    async def app(scope, receive, send):
        raise ValueError("boom")

    lines = Lines()
    with pytest.raises(ValueError, match="boom"):
        call(wrapped(app, log=lines), http())
    assert lines == ['9.9.9.9:5000 - "GET / HTTP/1.1" 500\n']


def test_an_application_that_never_answers_is_500():
    async def app(scope, receive, send):
        pass

    lines = Lines()
    call(wrapped(app, log=lines), http())
    assert only(lines).endswith(" 500\n")


@pytest.mark.parametrize("error", [OSError, asyncio.CancelledError])
def test_a_client_that_leaves_midway_keeps_the_status_that_was_sent(error):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 206})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise error

    lines = Lines("all")
    with pytest.raises(error):
        call(wrapped(app, log=lines), http())
    assert only(lines)[5:7] == (206, 4)


def test_a_client_that_leaves_before_the_answer_is_499():
    async def app(scope, receive, send):
        raise asyncio.CancelledError

    lines = Lines()
    with pytest.raises(asyncio.CancelledError):
        call(wrapped(app, log=lines), http())
    assert only(lines).endswith(" 499\n")


def test_a_failure_after_the_answer_makes_no_second_line():
    async def app(scope, receive, send):
        await ok(scope, receive, send)
        raise ValueError

    lines = Lines()
    with pytest.raises(ValueError):
        call(wrapped(app, log=lines), http())
    assert only(lines).endswith(" 200\n")


def test_the_line_tells_what_was_asked_for_whatever_the_application_does_to_the_scope():
    async def app(scope, receive, send):
        scope.update(path="/changed", raw_path=b"/changed", query_string="changed")
        await ok(scope, receive, send)

    lines = Lines()
    call(wrapped(app, log=lines), http("/a%20b", query_string=b'"\x1b'))
    assert lines == [r'9.9.9.9:5000 - "GET /a%20b?\"\x1b HTTP/1.1" 200' + "\n"]


def test_without_raw_path_the_path_is_quoted():
    lines = Lines()
    scope = http("/caf\u00e9 \n")
    del scope["raw_path"]
    call(wrapped(ok, log=lines), scope)
    assert '"GET /caf%C3%A9%20%0A HTTP/1.1"' in only(lines)


@pytest.mark.parametrize("client", [None, ("", 0)])
def test_clients_without_an_address(client):
    for name in ("unix", "-"):
        lines = Lines(nameless=name)
        call(wrapped(ok, log=lines), http(client=client))
        assert lines == [f'{name} - "GET / HTTP/1.1" 200\n']


def test_lifespan_passes_through_untouched():
    seen = []

    async def app(*args):
        seen.extend(args)

    scope, receive, send = {"type": "lifespan"}, object(), object()
    for log in (None, Lines()):
        seen.clear()
        asyncio.run(wrapped(app, log=log, root="/api")(scope, receive, send))
        assert all(got is given for got, given in zip(seen, (scope, receive, send), strict=True))
        assert scope == {"type": "lifespan"}
        assert not log


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        ({"type": "websocket.accept"}, "[accepted]"),
        ({"type": "websocket.close", "code": 1000}, "403"),
        ({"type": "websocket.http.response.start", "status": 401, "headers": []}, "401"),
    ],
)
def test_a_websocket_makes_one_line_at_its_handshake(first, outcome):
    lines = Lines()

    async def app(scope, receive, send):
        await send(first)
        assert len(lines) == 1
        await send({"type": "websocket.send", "text": "x"})
        await send({"type": "websocket.close"})

    scope = websocket()
    del scope["method"]
    assert len(call(wrapped(app, log=lines), scope)) == 3
    assert lines == [f'9.9.9.9:5000 - "WebSocket /ws" {outcome}\n']


def test_a_websocket_application_that_fails_before_the_handshake_is_500():
    async def app(scope, receive, send):
        raise ValueError

    lines = Lines()
    with pytest.raises(ValueError):
        call(wrapped(app, log=lines), websocket())
    assert lines == ['9.9.9.9:5000 - "WebSocket /ws" 500\n']


def test_trusted_proxies_are_believed_and_the_line_shows_the_client():
    forwarded = [(b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-proto", b"https")]
    for log in (None, Lines()):
        scope = http(client=("127.0.0.1", 1), headers=forwarded)
        call(wrapped(ok, log=log), scope)
        assert (scope["client"], scope["scheme"]) == (("1.2.3.4", 0), "https")
    assert log == ['1.2.3.4:0 - "GET / HTTP/1.1" 200\n']
    scope = http(headers=forwarded)
    call(wrapped(ok), scope)
    assert (scope["client"], scope["scheme"]) == (("9.9.9.9", 5000), "http")
    scope = websocket(client=("127.0.0.1", 1), headers=forwarded)
    call(wrapped(ok, log=Lines()), scope)
    assert scope["scheme"] == "wss"


@pytest.mark.parametrize(
    ("root", "path", "seen"),
    [
        ("", "/x", ("", "/x", b"/x")),
        ("/", "/x", ("", "/x", b"/x")),
        ("/api", "/x", ("/api", "/api/x", b"/api/x")),
        ("api/", "/x", ("/api", "/api/x", b"/api/x")),
        ("/api", "/api/x", ("/api", "/api/x", b"/api/x")),
        ("/api", "/api", ("/api", "/api", b"/api")),
        ("/api", "/apix", ("/api", "/api/apix", b"/api/apix")),
        ("/caf\u00e9", "/x", ("/caf\u00e9", "/caf\u00e9/x", b"/caf%C3%A9/x")),
        ("/api", "*", ("/api", "*", b"*")),
    ],
)
def test_root_path(root, path, seen):
    for log in (None, Lines()):
        scope = http(path)
        call(wrapped(ok, log=log, root=root), scope)
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == seen
    assert log == [f'9.9.9.9:5000 - "GET {path} HTTP/1.1" 200\n']


# WSGI


def test_wsgi_a_list_stays_a_list():
    lines, result = Lines("all"), [b"ab", b"cde"]

    def app(environ, start_response):
        start_response("201 Created", [])
        return result

    assert wrapped(app, "wsgi", log=lines)(environ("/a", QUERY_STRING="q=1"), Server()) is result
    host, port, method, target, version, status, size, _, referer, agent, *_ = only(lines)
    assert (host, port, method, target, version, status, size) == (
        "9.9.9.9",
        "5000",
        "GET",
        "/a?q=1",
        "1.1",
        201,
        5,
    )
    assert (referer, agent) == ("-", "-")


def test_wsgi_without_a_log_streams_pass_as_well():
    body = Body(b"ab", b"cde")
    assert Server().run(wrapped(streaming(body), "wsgi"), environ()) == [b"ab", b"cde"]
    assert body.closed == 1


def test_wsgi_a_stream_is_counted_closed_once_and_logged_after():
    lines, body = Lines("all"), Body(b"ab", b"cde")
    stream = wrapped(streaming(body), "wsgi", log=lines)(environ(), Server())
    assert list(stream) == [b"ab", b"cde"]
    assert not lines
    assert not body.closed
    stream.close()
    stream.close()
    assert body.closed == 1
    assert only(lines)[5:7] == (200, 5)


@pytest.mark.parametrize("parts", [0, 1])
def test_wsgi_a_client_that_leaves_midway_keeps_the_status(parts):
    lines, body = Lines("all"), Body(b"ab", b"cde")
    stream = wrapped(streaming(body, "206 Partial"), "wsgi", log=lines)(environ(), Server())
    each = iter(stream)
    for _ in range(parts):
        next(each)
    stream.close()
    assert body.closed == 1
    assert only(lines)[5:7] == (206, 2 * parts)


def test_wsgi_tuples_and_generators_without_close():
    for body in ((b"ab",), (part for part in [b"ab"]), map(bytes, [b"ab"])):
        lines = Lines("all")
        assert Server().run(wrapped(streaming(body), "wsgi", log=lines), environ()) == [b"ab"]
        assert only(lines)[6] == 2


def test_wsgi_a_generator_may_call_start_response_late():
    def app(environ, start_response):
        start_response("404 Not Found", [])
        yield b"x"

    lines = Lines()
    Server().run(wrapped(app, "wsgi", log=lines), environ())
    assert only(lines).endswith(" 404\n")


def test_wsgi_exceptions_are_the_engines_and_the_line_says_500():
    def app(environ, start_response):
        raise ValueError("boom")

    for failing in (app, streaming(Body(fail=ValueError("boom")))):
        lines = Lines()
        with pytest.raises(ValueError, match="boom"):
            Server().run(wrapped(failing, "wsgi", log=lines), environ())
        assert only(lines).endswith(" 500\n")


def test_wsgi_a_failure_midway_keeps_the_status():
    lines, body = Lines(), Body(b"x", fail=ValueError())
    with pytest.raises(ValueError):
        Server().run(wrapped(streaming(body), "wsgi", log=lines), environ())
    assert only(lines).endswith(" 200\n")
    assert body.closed == 1


def test_wsgi_a_failing_close_is_logged_and_raised():
    class Failing(Body):
        def close(self):
            raise ValueError("close")

    lines = Lines()
    with pytest.raises(ValueError, match="close"):
        Server().run(wrapped(streaming(Failing(b"x")), "wsgi", log=lines), environ())
    assert len(lines) == 1


def test_wsgi_start_response_gets_its_arguments_and_write_is_counted():
    written = []

    def app(environ, start_response):
        error = (ValueError, ValueError(), None)
        write = start_response("200 OK", [])
        start_response("503 Busy", [("A", "b")], error)
        write(b"abc")
        return []

    lines, server = Lines("all"), Server(written.append)
    server.run(wrapped(app, "wsgi", log=lines), environ())
    assert [len(args) for args in server.calls] == [2, 3]
    assert written == [b"abc"]
    assert only(lines)[5:7] == (503, 3)


def test_wsgi_start_response_without_write_as_in_granian():
    seen = []

    def app(environ, start_response):
        seen.append(start_response("200 OK", []))
        return []

    Server().run(wrapped(app, "wsgi", log=Lines()), environ())
    assert seen == [None]


def test_wsgi_the_servers_file_wrapper_stays_itself(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    for declared in ([], [("Content-Length", "1000")]):
        lines, opened = Lines("all"), (tmp_path / "file").open("rb")

        def app(environ, start_response, headers=declared, opened=opened):
            start_response("200 OK", headers)
            return environ["wsgi.file_wrapper"](opened)

        env = environ(**{"wsgi.file_wrapper": FileWrapper})
        body = wrapped(app, "wsgi", log=lines)(env, Server())
        assert type(body) is FileWrapper
        assert not lines
        body.close()
        body.close()
        assert opened.closed
        assert only(lines)[5:7] == (200, 1000)


def test_wsgi_a_file_that_is_none():
    lines = Lines("all")

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"x"))

    body = wrapped(app, "wsgi", log=lines)(environ(**{"wsgi.file_wrapper": FileWrapper}), Server())
    body.close()
    assert only(lines)[5:7] == (200, 0)


def test_wsgi_a_file_wrapper_that_is_a_function_does_not_matter():
    env = environ(**{"wsgi.file_wrapper": lambda file: file})
    lines = Lines()
    assert Server().run(wrapped(streaming(iter([b"x"])), "wsgi", log=lines), env) == [b"x"]
    assert len(lines) == 1


def test_wsgi_targets_and_escapes():
    cases = [
        ({"PATH_INFO": "/a b/\u00c3\u00a9%"}, "/a%20b/%C3%A9%25"),
        ({"RAW_URI": "/a%20b?x", "PATH_INFO": "/a b"}, "/a%20b?x"),
        ({"QUERY_STRING": 'a"b\\\u00c3\u00a9\u00ff'}, '/?a\\"b\\\\\u00e9\\xff'),
        ({"SCRIPT_NAME": "/s", "PATH_INFO": "/x;y"}, "/s/x;y"),
    ]
    for changes, target in cases:
        lines = Lines("all")
        wrapped(hello, "wsgi", log=lines)(environ(**changes), Server())
        assert only(lines)[3] == target
    lines = Lines("all")
    sent = {"HTTP_USER_AGENT": 'x" \x1b', "HTTP_REFERER": "http://\u00c3\u00a9/", "REQUEST_METHOD": 'G"'}
    wrapped(hello, "wsgi", log=lines)(environ(**sent), Server())
    assert only(lines)[8:10] == ("http://\u00e9/", r"x\" \x1b")
    assert only(lines)[2] == r"G\""


def test_wsgi_head_declared_sizes_and_clients_without_an_address():
    lines = Lines("all", nameless="unix")
    wrapped(hello, "wsgi", log=lines)(environ(REQUEST_METHOD="HEAD", REMOTE_ADDR=""), Server())
    assert only(lines)[:2] == ("unix", None)
    assert only(lines)[6] == 0
    lines = Lines("hypercorn")
    without_port = environ()
    del without_port["REMOTE_PORT"]
    wrapped(hello, "wsgi", log=lines)(without_port, Server())
    assert "[INFO] 9.9.9.9 - - [" in only(lines)
    assert lines[0].endswith('"GET / 1.1" 200 5 "-" "-"\n')


def test_wsgi_trusted_proxies():
    sent = {"HTTP_X_FORWARDED_FOR": "1.2.3.4", "HTTP_X_FORWARDED_PROTO": "https", "REMOTE_ADDR": "127.0.0.1"}
    for log in (None, Lines()):
        env = environ(**sent)
        wrapped(hello, "wsgi", log=log)(env, Server())
        assert (env["REMOTE_ADDR"], env["wsgi.url_scheme"]) == ("1.2.3.4", "https")
    assert log == ['1.2.3.4:0 - "GET / HTTP/1.1" 200\n']


@pytest.mark.parametrize(
    ("root", "path", "script", "rest"),
    [
        ("", "/x", "", "/x"),
        ("/api", "/x", "/api", "/x"),
        ("/api/", "/api/x", "/api", "/x"),
        ("/api", "/api", "/api", ""),
        ("/api", "/apix", "/api", "/apix"),
        ("/caf\u00e9", "/caf\u00c3\u00a9/x", "/caf\u00c3\u00a9", "/x"),
    ],
)
def test_wsgi_root_path(root, path, script, rest):
    for log in (None, Lines()):
        env = environ(path)
        wrapped(hello, "wsgi", log=log, root=root)(env, Server())
        assert (env["SCRIPT_NAME"], env["PATH_INFO"]) == (script, rest)
