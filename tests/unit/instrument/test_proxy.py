import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.instrument.proxy import asgi_proxy, wsgi_proxy
from mooring.settings.trusted import parse_trusted

DEFAULT = ("127.0.0.1", "::1", "unix")


def asgi(items, client, *, kind="http", unix=False, **headers):
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    raw = [(name, each) for name, value in pairs for each in (value if isinstance(value, list) else [value])]
    scope = {
        "type": kind,
        "scheme": "ws" if kind == "websocket" else "http",
        "client": client,
        "headers": raw,
    }
    asgi_proxy(parse_trusted(items), unix=unix)(scope)
    return scope["client"], scope["scheme"]


def wsgi(items, address, *, unix=False, **headers):
    environ = {
        "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    if address is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = address, "5000"
    wsgi_proxy(parse_trusted(items), unix=unix)(environ)
    return environ


# allowed, X-Forwarded-For, the client it makes of the peer 127.0.0.1:5000
CASES = [
    (DEFAULT, "1.2.3.4", ("1.2.3.4", 0)),
    (DEFAULT, "1.2.3.4:8080", ("1.2.3.4", 8080)),
    (DEFAULT, "[2001:db8::1]:8080", ("2001:db8::1", 8080)),
    (DEFAULT, "[2001:db8::1]", ("2001:db8::1", 0)),
    (DEFAULT, "2001:db8::1", ("2001:db8::1", 0)),
    (DEFAULT, "6.6.6.6, 1.2.3.4", ("1.2.3.4", 0)),
    (DEFAULT, "1.2.3.4, 127.0.0.1", ("1.2.3.4", 0)),
    (DEFAULT, "1.2.3.4, unix:", ("1.2.3.4", 0)),
    (("127.0.0.1", "10.0.0.0/8"), "6.6.6.6, 1.2.3.4, 10.1.2.3, 10.200.0.1:99", ("1.2.3.4", 0)),
    (("127.0.0.1", "2001:db8::/32"), "1.2.3.4, [2001:db8::5]:1", ("1.2.3.4", 0)),
    (("127.0.0.1", "10.0.0.0/8"), "10.0.0.1, 10.0.0.2", ("10.0.0.1", 0)),
    (("*",), "6.6.6.6, 1.2.3.4", ("6.6.6.6", 0)),
    (DEFAULT, "unknown", ("unknown", 0)),
    (DEFAULT, "1.2.3.4,", ("1.2.3.4", 0)),
    # nothing usable: the peer stays
    (DEFAULT, "", ("127.0.0.1", 5000)),
    (DEFAULT, " , ,", ("127.0.0.1", 5000)),
    (DEFAULT, "[::1", ("127.0.0.1", 5000)),
    (DEFAULT, 'evil" 200', ("127.0.0.1", 5000)),
    (DEFAULT, "1.2.3.4\x1b[2J", ("127.0.0.1", 5000)),
    (DEFAULT, "x" * 300, ("127.0.0.1", 5000)),
    (DEFAULT, "unix:", ("127.0.0.1", 5000)),
    (DEFAULT, "1.2.3.4:99999999999999999999", ("1.2.3.4:99999999999999999999", 0)),
    # not trusted at all
    (("10.0.0.1",), "1.2.3.4", ("127.0.0.1", 5000)),
    ((), "1.2.3.4", ("127.0.0.1", 5000)),
]


@pytest.mark.parametrize(("allowed", "forwarded", "client"), CASES)
def test_the_client_is_the_rightmost_hop_that_is_not_trusted(allowed, forwarded, client):
    assert asgi(allowed, ("127.0.0.1", 5000), x_forwarded_for=forwarded.encode())[0] == client
    environ = wsgi(allowed, "127.0.0.1", x_forwarded_for=forwarded)
    assert (environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"])) == client
    assert environ["HTTP_X_FORWARDED_FOR"] == forwarded


def test_several_header_lines_are_one_list():
    both = [b"6.6.6.6", b"1.2.3.4"]
    assert asgi(DEFAULT, ("127.0.0.1", 5000), x_forwarded_for=both)[0] == ("1.2.3.4", 0)


@pytest.mark.parametrize(
    ("proto", "http", "websocket"),
    [
        ("https", "https", "wss"),
        ("wss", "https", "wss"),
        ("http", "http", "ws"),
        (" HTTPS ", "https", "wss"),
        ("http, https", "https", "wss"),
        ("gopher", "http", "ws"),
        ("", "http", "ws"),
        ("https\x00", "http", "ws"),
    ],
)
def test_the_scheme(proto, http, websocket):
    peer = ("127.0.0.1", 5000)
    assert asgi(DEFAULT, peer, x_forwarded_proto=proto.encode())[1] == http
    assert asgi(DEFAULT, peer, kind="websocket", x_forwarded_proto=proto.encode())[1] == websocket
    assert asgi(("10.0.0.1",), peer, x_forwarded_proto=proto.encode())[1] == "http"
    environ = wsgi(DEFAULT, "127.0.0.1", x_forwarded_proto=proto)
    assert environ["wsgi.url_scheme"] == http
    assert (environ.get("HTTPS") == "on") is (http == "https")


def test_a_proxy_that_ends_tls_itself_can_say_http():
    assert wsgi(DEFAULT, "127.0.0.1", x_forwarded_proto="http")["HTTPS"] == "off"


@pytest.mark.parametrize("nobody", [None, ("", 0)])
def test_unix_peers_are_trusted_when_listed_and_there_is_such_a_listener(nobody):
    header = {"x_forwarded_for": b"1.2.3.4"}
    assert asgi(DEFAULT, nobody, unix=True, **header)[0] == ("1.2.3.4", 0)
    assert asgi(("127.0.0.1",), nobody, unix=True, **header)[0] == nobody
    assert asgi(("*",), nobody, **header)[0] == ("1.2.3.4", 0)
    # without a unix listener it is a TCP peer that has reset its connection: anybody
    assert asgi(DEFAULT, nobody, unix=False, **header)[0] == nobody


@pytest.mark.parametrize("nobody", [None, ""])
def test_unix_peers_on_wsgi(nobody):
    assert wsgi(DEFAULT, nobody, unix=True, x_forwarded_for="1.2.3.4")["REMOTE_ADDR"] == "1.2.3.4"
    assert wsgi(DEFAULT, nobody, unix=False, x_forwarded_for="1.2.3.4").get("REMOTE_ADDR") == nobody


def test_an_ipv4_peer_of_a_listener_for_both_families():
    assert asgi(("10.0.0.0/8",), ("::ffff:10.0.0.1", 1), x_forwarded_for=b"1.2.3.4")[0] == ("1.2.3.4", 0)
    assert asgi(("::ffff:10.0.0.1",), ("10.0.0.1", 1), x_forwarded_for=b"1.2.3.4")[0] == ("1.2.3.4", 0)


@pytest.mark.parametrize("item", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "1.2.3", "", "10.0.0.1:80"])
def test_a_bad_entry_stops_the_start(item):
    expected = f"addresses such as 10.0.0.1, networks such as 10.0.0.0/8, unix, or *, not {item!r}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse_trusted(["127.0.0.1", item])


@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=20), st.sampled_from([DEFAULT, ("*",), ("0.0.0.0/0",)]))
def test_no_header_value_crashes_a_request_or_makes_an_unsafe_client(forwarded, proto, allowed):
    raw, scheme = forwarded.encode("utf-8", "replace"), proto.encode("utf-8", "replace")
    client, _ = asgi(allowed, ("127.0.0.1", 5000), x_forwarded_for=raw, x_forwarded_proto=scheme)
    assert client[0].isascii()
    assert client[0].isprintable()
    assert not set(client[0]) & set(' "\\')
    latin = {"x_forwarded_for": raw.decode("latin-1"), "x_forwarded_proto": scheme.decode("latin-1")}
    assert wsgi(allowed, "127.0.0.1", **latin)["REMOTE_ADDR"] == client[0]


# Mapped IPv4 addresses aside, which we take for what they are.
ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None)


@settings(deadline=None)
@given(st.lists(ADDRESSES.map(str), min_size=1, max_size=5))
@pytest.mark.parametrize("allowed", [["127.0.0.1", "10.0.0.0/8"], ["0.0.0.0/1", "::/1"], ["*"]])
def test_the_rules_are_uvicorns(allowed, hops):
    proxy_headers = pytest.importorskip("uvicorn.middleware.proxy_headers")
    theirs = proxy_headers._TrustedHosts("*" if allowed == ["*"] else allowed)
    assert parse_trusted(allowed).client(", ".join(hops)) == theirs.get_trusted_client_address(
        ", ".join(hops)
    )


@pytest.mark.parametrize("hop", ["127.0.0.1", "", " ", "unix", "10.0.0.{}"])
def test_of_a_hundred_thousand_hops_few_are_looked_at(hop):
    trusted = parse_trusted([*DEFAULT, "10.0.0.0/8"])
    looks, believes = [], trusted.believes

    def counted(host):
        looks.append(host)
        return believes(host)

    trusted.believes = counted
    many = ",".join(hop.format(number % 256) for number in range(100_000))
    assert trusted.client(f"{many},1.2.3.4") == ("1.2.3.4", 0)
    assert trusted.client(f"1.2.3.4,{many}") is None  # who forges so many is not believed
    assert len(looks) <= 300


def test_the_leftmost_hop_is_found_behind_nothing():
    everyone = parse_trusted(["*"])
    assert everyone.client(" ,, ,1.2.3.4 ,5.6.7.8") == ("1.2.3.4", 0)
    assert everyone.client(", ,") is None


def test_many_fields_of_hops_are_joined_once():
    class Field(bytes):
        added = 0

        def __add__(self, other):
            Field.added += 1
            return bytes(self) + other

    fields = [Field(b"127.0.0.1")] * 200
    assert asgi(DEFAULT, ("127.0.0.1", 5), x_forwarded_for=[*fields, b"1.2.3.4"])[0] == ("1.2.3.4", 0)
    assert not Field.added
