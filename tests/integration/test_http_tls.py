"""TLS with the same two settings on every engine; a roll serves the new certificate. HTTP/2 over TLS."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from certificates import Authority, serial_of
from harness import PATIENCE, eventually
from served import Served
from variants import ALL, ASGI, HTTP2, Variant
from wire import Wire, received_over_tls, seen


@dataclass(frozen=True)
class Secured:
    """A server with a certificate of an authority."""

    served: Served
    authority: Authority

    def context(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.served.app.port), PATIENCE)
        return context.wrap_socket(plain, server_hostname="localhost")

    def serial(self) -> int:
        with self.connect(self.context()) as sock:
            found = sock.getpeercert(binary_form=True)
            assert found is not None
            return serial_of(found)

    def client(self, **more) -> httpx.Client:
        url = f"https://localhost:{self.served.app.port}"
        context = ssl.create_default_context(cafile=str(self.authority.path))
        return httpx.Client(base_url=url, verify=context, timeout=PATIENCE, trust_env=False, **more)


@pytest.fixture(scope="module")
def secured(request, shared) -> Iterator[Secured]:
    with shared() as starter:
        authority = Authority(starter.base)
        certificate, key = authority.issue(1000)
        yield Secured(
            Served.start(
                starter,
                request.param,
                MOORING_TLS_CERTIFICATE=certificate,
                MOORING_TLS_KEY=key,
                MOORING_HOST="127.0.0.1",
            ),
            authority,
        )


def secured_by(variants: list[Variant]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("secured", variants, indirect=True, scope="module", ids=str)


@secured_by(ALL)
def test_requests_are_answered_over_tls(secured: Secured):
    assert secured.served.url.startswith("https://127.0.0.1:")
    with secured.client() as client:
        scope = client.get("/scope").json()
        assert (scope["scheme"], scope["http_version"]) == ("https", "1.1")
        body = b"x" * 1_000_000
        assert client.post("/digest", content=body).json()["size"] == len(body)


@secured_by(ALL)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_tls_1_2_and_1_3_are_spoken(secured: Secured, version: ssl.TLSVersion):
    context = secured.context()
    context.minimum_version = context.maximum_version = version
    with Wire(secured.connect(context)) as wire:
        assert wire.sock.version() == version.name.replace("_", ".")
        assert seen(wire.ask("/scope"))["scheme"] == "https"


@secured_by(ALL)
def test_the_best_http_version_that_the_engine_has_is_agreed(secured: Secured):
    with secured.connect(secured.context("h2", "http/1.1")) as sock:
        expected = "h2" if secured.served.variant in HTTP2 else "http/1.1"
        assert sock.selected_alpn_protocol() in {expected, None if expected == "http/1.1" else expected}


@secured_by(ASGI)
def test_websockets_are_echoed_over_tls(secured: Secured):
    url = f"wss://localhost:{secured.served.app.port}"
    assert received_over_tls(f"{url}/ws", secured.context(), "grüße") == "grüße"
    assert json.loads(received_over_tls(f"{url}/scope", secured.context()))["scheme"] == "wss"


@secured_by(ALL)
def test_a_client_without_tls_harms_nobody(secured: Secured):
    with secured.served.wire() as wire:
        wire.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert b" 200 " not in wire.rest()
    with secured.client() as client:
        assert client.get("/cookies").text == "two"


@secured_by(HTTP2)
def test_http_2_carries_many_requests_on_one_connection(secured: Secured):
    with secured.client(http2=True) as client:
        for number in range(20):
            answer = client.get(f"/scope?n={number}")
            assert answer.http_version == "HTTP/2"
            scope = answer.json()
            assert (scope["http_version"], scope["query"]) == ("2", f"n={number}")
        body = b"x" * 1_000_000
        assert client.post("/digest", content=body).json()["size"] == len(body)
        assert client.get("/cookies").headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert client.head("/cookies").content == b""
        assert client.get("/nothing-here").status_code == 404
        assert client.get("/raise").status_code == 500


@secured_by(ALL)
def test_a_roll_serves_the_certificate_that_is_there_now(secured: Secured):
    before = secured.serial()
    generation = secured.served.app.status()["generation"]
    secured.authority.issue(before + 1)
    secured.served.app.signal(signal.SIGHUP)
    secured.served.app.wait_log(f"rolled: generation {generation + 1}")
    # The workers that leave may answer those who were in their queue.
    eventually(lambda: secured.serial() == before + 1, "the new certificate")
    with secured.client() as client:
        assert client.get("/cookies").text == "two"
