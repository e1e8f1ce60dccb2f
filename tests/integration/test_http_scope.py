"""What the application is told of a request, the same on every engine: paths, headers, the client."""

from __future__ import annotations

import pytest
from served import Served
from variants import asgi_only, everywhere, wsgi_only
from wire import seen

PATHS = [
    ("/scope", "/scope"),
    ("/gr%C3%BC%C3%9Fe/scope", "/grüße/scope"),
    ("/a%20b/scope", "/a b/scope"),
    ("/a%2Fb/scope", "/a/b/scope"),
    ("/%25/scope", "/%/scope"),
    ("/a;b=c,d/scope", "/a;b=c,d/scope"),
    ("/a//b/./scope", "/a//b/./scope"),
]


@asgi_only
@pytest.mark.parametrize(("sent", "path"), PATHS)
def test_an_asgi_path_is_decoded_and_the_raw_one_is_as_sent(served: Served, sent: str, path: str):
    with served.wire() as wire:
        scope = seen(wire.ask(f"{sent}?q=%C3%BC&q=a+b"))
    assert (scope["path"], scope["raw_path"]) == (path, sent)
    assert scope["query"] == "q=%C3%BC&q=a+b"


@wsgi_only
@pytest.mark.parametrize(("sent", "path"), PATHS)
def test_a_wsgi_path_is_decoded_bytes_as_latin_1(served: Served, sent: str, path: str):
    with served.wire() as wire:
        environ = seen(wire.ask(f"{sent}?q=%C3%BC&q=a+b"))
    assert environ["path"].encode("latin-1").decode() == path
    assert (environ["root_path"], environ["query"]) == ("", "q=%C3%BC&q=a+b")


@asgi_only
def test_asgi_headers_are_lower_case_and_repeated_ones_stay_apart(served: Served):
    with served.wire() as wire:
        scope = seen(wire.ask("/scope", headers=[("X-Twice", "1"), ("COOKIE", "a=1"), ("x-twice", "2")]))
    assert [value for name, value in scope["headers"] if name == "x-twice"] == ["1", "2"]
    assert [value for name, value in scope["headers"] if name == "cookie"] == ["a=1"]


@wsgi_only
def test_wsgi_headers_that_are_repeated_are_joined(served: Served):
    with served.wire() as wire:
        environ = seen(wire.ask("/scope", headers=[("X-Twice", "1"), ("Cookie", "a=1"), ("x-twice", "2")]))
    headers = dict(environ["headers"])
    assert (headers["x-twice"].replace(", ", ","), headers["cookie"]) == ("1,2", "a=1")


@everywhere
def test_several_cookies_arrive(served: Served):
    with served.wire() as wire:
        scope = seen(wire.ask("/scope", headers=[("Cookie", "a=1"), ("Cookie", "b=2")]))
    cookies = [value for name, value in scope["headers"] if name == "cookie"]
    joined = "; ".join(cookies).replace(",", ";").replace(" ", "")
    assert joined == "a=1;b=2"


@everywhere
def test_a_header_beyond_ascii_arrives(served: Served):
    with served.wire() as wire:
        scope = seen(wire.ask("/scope", headers=[("X-Name", "gr\xfc\xdfe"), ("X-Empty", "")]))
    assert dict(scope["headers"])["x-name"] == "gr\xfc\xdfe"
    assert dict(scope["headers"])["x-empty"] == ""


@everywhere
def test_the_version_and_the_scheme_are_those_of_the_request(served: Served):
    with served.wire() as wire:
        scope = seen(wire.ask("/scope"))
    assert (scope["http_version"], scope["scheme"], scope["root_path"]) == ("1.1", "http", "")


def address(served: Served, peer: tuple[str, int]) -> list[str | int | None]:
    """A client as the application sees it. docs/engines.md, "headers": one tells no port to WSGI."""
    if served.variant.interface == "asgi":
        return [*peer]
    return [peer[0], None if served.variant.engine == "hypercorn" else str(peer[1])]


FORWARDED = [("X-Forwarded-For", "203.0.113.7, 127.0.0.1"), ("X-Forwarded-Proto", "https")]


@everywhere
def test_a_trusted_peer_tells_client_and_scheme(served: Served):
    with served.wire_from("127.0.0.1") as wire:  # trusted where nothing is set
        scope = seen(wire.ask("/scope", headers=FORWARDED))
    assert (scope["client"][0], scope["scheme"]) == ("203.0.113.7", "https")


@everywhere
def test_an_untrusted_peer_cannot_forge_client_and_scheme(served: Served):
    with served.wire_from("127.0.0.2") as wire:
        peer = wire.sock.getsockname()
        scope = seen(wire.ask("/scope", headers=FORWARDED))
    assert (scope["client"], scope["scheme"]) == (address(served, peer), "http")


@everywhere
def test_without_forwarded_headers_the_client_is_the_peer(served: Served):
    with served.wire() as wire:
        peer = wire.sock.getsockname()
        scope = seen(wire.ask("/scope"))
    assert scope["client"] == address(served, peer)
