"""The text forms of BIND: each is understood, and each mistake says what was expected."""

from __future__ import annotations

import pytest

from mooring.system.address import EXPECTED, Address, parse_address, parse_bind, parse_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8000", Address("tcp", host="127.0.0.1", port=8000)),
        (":8000", Address("tcp", host="", port=8000)),
        ("localhost:0", Address("tcp", host="localhost", port=0)),
        ("[::1]:80", Address("tcp", host="::1", port=80)),
        ("[::]:65535", Address("tcp", host="::", port=65535)),
        ("  0.0.0.0:80 ", Address("tcp", host="0.0.0.0", port=80)),
        ("unix:/run/app.sock", Address("unix", path="/run/app.sock")),
        ("unix:///run/app.sock", Address("unix", path="/run/app.sock")),
        ("unix:app.sock", Address("unix", path="app.sock")),
        ("/run/app.sock", Address("unix", path="/run/app.sock")),
        ("./app.sock", Address("unix", path="./app.sock")),
        ("unix:/with space:80", Address("unix", path="/with space:80")),
        ("fd://3", Address("fd", fd=3)),
        ("systemd", Address("systemd")),
    ],
)
def test_each_form_is_understood(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EXPECTED),
        ("8000", EXPECTED),
        ("localhost", EXPECTED),
        ("http://127.0.0.1:80", EXPECTED),
        ("tcp://127.0.0.1:80", EXPECTED),
        ("::1:80", "an IPv6 address in brackets: [::1]:8000"),
        ("[::1:80", "an IPv6 address in brackets: [::1]:8000"),
        ("127.0.0.1:", "a port from 0 to 65535"),
        ("127.0.0.1:-1", "a port from 0 to 65535"),
        ("127.0.0.1:65536", "a port from 0 to 65535"),
        ("127.0.0.1:http", "a port from 0 to 65535"),
        ("127.0.0.1:٣", "a port from 0 to 65535"),
        ("a b:80", EXPECTED),
        ("a/b:80", EXPECTED),
        ("unix:", "unix:PATH with a path"),
        ("fd://", "fd://N with a descriptor number"),
        ("fd://-1", "fd://N with a descriptor number"),
        ("fd://x", "fd://N with a descriptor number"),
    ],
)
def test_each_mistake_says_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(text)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8000", "[::1]:80", ":80", "unix:/run/app.sock", "fd://3", "systemd", "localhost:0"]
)
def test_what_is_shown_can_be_given_again(text: str) -> None:
    assert str(parse_address(text)) == text


def test_a_list_keeps_its_order_and_needs_one_address() -> None:
    assert [str(address) for address in parse_bind("[::1]:80, unix:/x ,fd://3,")] == [
        "[::1]:80",
        "unix:/x",
        "fd://3",
    ]
    for nothing in ("", " ", ",,"):
        with pytest.raises(ValueError) as caught:
            parse_bind(nothing)
        assert str(caught.value) == EXPECTED


def test_a_port_has_digits_only() -> None:
    assert parse_port("0") == 0
    for text in ("", "+1", "1_000", " 80", "0x50"):
        with pytest.raises(ValueError):
            parse_port(text)
