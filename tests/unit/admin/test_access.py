"""Who may read the admin endpoint: hosts and tokens."""

from __future__ import annotations

import base64

import pytest

from mooring.admin.access import Access
from mooring.admin.answers import Request


def status(access: Access, host: str = "", authorization: str = "", *, any_host: bool = False) -> int:
    refusal = access.refuse(Request("GET", "/status", host, authorization), any_host=any_host)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        "",
        "127.0.0.1",
        "10.1.2.3:9100",
        "[::1]",
        "[fe80::1]:9",
        "localhost",
        "LocalHost.:80",
        "shop",
        "SHOP:1",
    ],
)
def test_addresses_localhost_and_known_names_are_taken(host):
    assert status(Access(["Shop"]), host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.1", "1", "0x7f.0.0.1", "[evil]",
     "[::1", "[::1].evil.example", "shop@evil", "\x00", "shop, evil", "127.0.0.1@evil", " "],
)  # fmt: skip
def test_any_other_name_is_refused(host):
    assert status(Access(["shop"]), host) == 421
    assert status(Access(["shop"]), host, any_host=True) == 200


def test_a_refusal_shows_the_name_and_the_setting():
    refusal = Access().refuse(Request("GET", "/", "\u00e9vil"), any_host=False)
    assert refusal is not None
    assert "'\\xe9vil'" in refusal.body
    assert "MOORING_ADMIN_HOSTS" in refusal.body


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("given", ["Bearer s3cret", "bearer  s3cret", basic("any:s3cret"), basic(":s3cret")])
def test_the_token_is_taken_as_bearer_and_as_a_browsers_password(given):
    assert status(Access(token="s3cret"), authorization=given) == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "s3cret", "Basic s3cret", "Basic =",
     basic("s3cret"),
     basic("s3cret:"), "Digest s3cret", "Bearer \u20ac", basic("a:b:s3cret")],
)  # fmt: skip
def test_anything_else_is_refused_with_a_challenge(given):
    refusal = Access(token="s3cret").refuse(Request("GET", "/", "", given), any_host=True)
    assert refusal is not None
    assert refusal.status == 401
    assert b"www-authenticate: Bearer" in refusal.encode()


def test_tokens_with_odd_characters():
    given = "Bearer \u00e0".encode().decode("latin-1")  # its last byte is a blank in Latin-1
    assert status(Access(token="\u00e0"), authorization=given) == 200
    assert status(Access(token="a:b"), authorization=basic("x:a:b")) == 200
    assert status(Access(token="\u20ac"), authorization=basic("x:\u20ac")) == 200
