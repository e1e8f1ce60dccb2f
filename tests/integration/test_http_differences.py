"""Where the engines differ: what docs/engines.md tells of it, asserted, so that a change is noticed."""

from __future__ import annotations

import json

from served import Served
from variants import Variant, everywhere, wsgi_only
from wire import seen


def kind(variant: Variant) -> str:
    """The column of docs/engines.md: what decides is the code that speaks HTTP."""
    if variant.worker_class.endswith("UvicornWorker"):
        return "uvicorn"
    if variant.engine in {"uvicorn", "hypercorn"}:
        return variant.engine
    return f"{variant.engine} {variant.worker_class if variant.engine == 'gunicorn' else variant.interface}"


@everywhere
def test_who_calls_itself_by_name(served: Served):
    with served.wire() as wire:
        headers = wire.ask("/cookies").headers
    assert "date" in headers
    name = {"granian asgi": "granian", "granian wsgi": "granian", "gunicorn asgi": "gunicorn/asgi"}
    expected = name.get(
        kind(served.variant), "gunicorn" if kind(served.variant).startswith("gunicorn") else None
    )
    assert headers.get("server") == expected


@everywhere
def test_an_answer_that_breaks_off_is_seen_as_broken(served: Served):
    with served.wire() as wire:
        wire.send("/break", headers=[("Connection", "close")])
        assert wire.head()[0] == 200
        assert wire.next_chunk() == b"first\n"
        rest = wire.rest()
    assert rest == b""
    served.app.wait_log("the application broke off")


@everywhere
def test_who_parses_an_absolute_target(served: Served):
    with served.wire() as wire:
        path = seen(wire.ask("http://test/here/scope"))["path"]
    whole = kind(served.variant) in {"hypercorn", "gunicorn asgi"}
    assert path == ("http://test/here/scope" if whole else "/here/scope")


@everywhere
def test_who_refuses_http_1_1_without_a_host(served: Served):
    with served.wire() as wire:
        wire.write(b"GET /cookies HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert wire.reply().status == (400 if kind(served.variant) == "hypercorn" else 200)


@everywhere
def test_who_takes_bare_line_feeds(served: Served):
    with served.wire() as wire:
        wire.write(b"GET /cookies HTTP/1.1\nHost: test\nConnection: close\n\n")
        lenient = served.variant.engine in {"granian", "hypercorn"}
        assert wire.reply().status == (200 if lenient else 400)


@everywhere
def test_who_refuses_a_length_together_with_chunks(served: Served):
    with served.wire() as wire:
        wire.write(
            b"POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
        reply = wire.reply()
        if served.variant.engine == "granian":
            assert json.loads(reply.body)["size"] == 5  # RFC 9112, 6.3: the chunks count
            assert not wire.still_open()
        else:
            assert reply.status == 400


@everywhere
def test_who_keeps_a_connection_of_http_1_0(served: Served):
    with served.wire() as wire:
        wire.write(b"GET /cookies HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert wire.reply().body == b"two"
        assert wire.still_open() == (kind(served.variant) not in {"uvicorn", "hypercorn", "gunicorn sync"})


@wsgi_only
def test_a_header_with_an_underscore_cannot_pass_for_another(served: Served):
    """As X_Forwarded_For: a proxy that lets it through would let clients choose their address."""
    with served.wire_from("127.0.0.1") as wire:
        told = seen(wire.ask("/scope", headers=[("X_Forwarded_For", "203.0.113.6")]))
    assert told["client"][0] == "127.0.0.1"
    with served.wire_from("127.0.0.1") as wire:
        headers = [("X-Forwarded-For", "203.0.113.5"), ("X_Forwarded_For", "203.0.113.6"), ("X_Test", "1")]
        told = seen(wire.ask("/scope", headers=headers))
    assert told["client"][0] == "203.0.113.5"
    assert [name for name, _ in told["headers"] if name in {"x-test", "x_test"}] == []
