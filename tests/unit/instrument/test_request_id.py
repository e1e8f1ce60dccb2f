"""Request ids and trace context: whose is kept, that there is one of each, and that no two are the same."""

import os
import re
import threading

import pytest

from mooring.instrument.request_id import asgi_identifier, with_headers, wsgi_identifier
from mooring.settings.trusted import parse_trusted

TRUSTED = parse_trusted(["127.0.0.1", "unix"])
FRESH = r"[0-9a-f]{32}"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Asgi:
    """The identifier with what a request looks like in a scope."""

    def __init__(self, header="x-request-id", trace=False, unix=False):
        self.identify = asgi_identifier(header, trace, TRUSTED, unix=unix)

    def __call__(self, *headers, peer="127.0.0.1"):
        given = [(name.encode(), value.encode("latin-1")) for name, value in (("host", "x"), *headers)]
        scope = {"client": (peer, 5) if peer else None, "headers": given}
        request_id, trace, answer = self.identify(scope)
        seen = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        assert seen[0] == ("host", "x")
        return request_id, trace, [(n.decode(), v.decode()) for n, v in answer], seen[1:]


class Wsgi:
    """The same of an environ, where the server joins headers of one name by commas."""

    def __init__(self, header="x-request-id", trace=False, unix=False):
        self.identify = wsgi_identifier(header, trace, TRUSTED, unix=unix)

    def __call__(self, *headers, peer="127.0.0.1"):
        environ = {"REMOTE_ADDR": peer, "wsgi.input": None}
        for name, value in headers:
            key = "HTTP_" + name.upper().replace("-", "_")
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        request_id, trace, answer = self.identify(environ)
        seen = [(k[5:].lower().replace("_", "-"), v) for k, v in environ.items() if k.startswith("HTTP_")]
        return request_id, trace, answer, seen


BOTH = pytest.mark.parametrize("interface", [Asgi, Wsgi])


@BOTH
@pytest.mark.parametrize("given", ["abc-123", "a" * 128, "Root=1-67891233-abcdef/x+y@z:0._"])
def test_a_trusted_peer_s_is_kept(interface, given):
    request_id, trace, answer, seen = interface()(("x-request-id", given))
    assert (request_id, trace) == (given, "-")
    assert answer == seen == [("x-request-id", given)]


@BOTH
@pytest.mark.parametrize(
    "given", ["", "a" * 129, "a b", "a,b", 'a"', "a\\", "a\n", "\xe9", "a;b", "<a>", "abc\n"]
)
def test_what_is_not_usable_is_replaced(interface, given):
    request_id, _, answer, seen = interface()(("x-request-id", given))
    assert re.fullmatch(FRESH, request_id)
    assert answer == seen == [("x-request-id", request_id)]


@BOTH
def test_of_two_none_is_kept(interface):
    request_id, _, answer, seen = interface()(("x-request-id", "one"), ("x-request-id", "two"))
    assert re.fullmatch(FRESH, request_id)
    assert answer == seen == [("x-request-id", request_id)]


@BOTH
@pytest.mark.parametrize(
    ("peer", "unix"), [("10.0.0.9", False), (None, False), ("", False), ("10.0.0.9", True)]
)
def test_another_peer_s_is_replaced(interface, peer, unix):
    request_id, _, answer, seen = interface(unix=unix)(("x-request-id", "abc"), ("x-b", "c"), peer=peer)
    assert re.fullmatch(FRESH, request_id)
    assert answer == [("x-request-id", request_id)]
    assert sorted(seen) == [("x-b", "c"), ("x-request-id", request_id)]


@BOTH
def test_a_peer_on_a_unix_socket_is_trusted_as_for_x_forwarded(interface):
    assert interface(unix=True)(("x-request-id", "abc"), peer="")[0] == "abc"


@BOTH
def test_without_one_it_is_made_and_the_application_has_it_too(interface):
    request_id, _, answer, seen = interface()()
    assert re.fullmatch(FRESH, request_id)
    assert answer == seen == [("x-request-id", request_id)]


@BOTH
def test_the_header_has_the_name_that_was_asked_for(interface):
    request_id, _, answer, seen = interface("x-correlation-id")(
        ("x-correlation-id", "a"), ("x-request-id", "b")
    )
    assert (request_id, answer) == ("a", [("x-correlation-id", "a")])
    assert sorted(seen) == [("x-correlation-id", "a"), ("x-request-id", "b")]


def test_headers_that_are_no_list_are_not_touched():
    identify = asgi_identifier("x-request-id", False, TRUSTED, unix=False)
    scope = {"client": None, "headers": ((b"host", b"x"),)}
    request_id = identify(scope)[0]
    assert list(scope["headers"]) == [(b"host", b"x"), (b"x-request-id", request_id.encode())]


@BOTH
def test_off_is_nothing_on_the_path(interface):
    for header in (None, ""):
        assert interface(header).identify is None


@BOTH
def test_ids_are_never_the_same_in_threads_nor_in_a_forked_child(interface):
    make, made = interface(), []
    threads = [
        threading.Thread(target=lambda: made.extend([make()[0] for _ in range(2000)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, " ".join(make()[0] for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    made += os.read(reader, 65536).decode().split()
    os.close(reader)
    made += [make()[0] for _ in range(1000)] + [interface()()[0] for _ in range(100)]
    assert len(set(made)) == len(made) == 17_200


@BOTH
def test_the_trace_of_a_trusted_peer_goes_on(interface):
    request_id, trace, answer, seen = interface(trace=True)(("traceparent", PARENT), ("tracestate", "a=b"))
    assert trace == TRACE
    assert answer == [("x-request-id", request_id), ("traceresponse", PARENT)]
    assert sorted(seen) == [("traceparent", PARENT), ("tracestate", "a=b"), ("x-request-id", request_id)]


@BOTH
def test_a_trace_without_request_ids(interface):
    assert interface(None, trace=True)(("traceparent", PARENT)) == (
        "-",
        TRACE,
        [("traceresponse", PARENT)],
        [("traceparent", PARENT)],
    )


@BOTH
@pytest.mark.parametrize("later", [f"01-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-09-what-ever"])
def test_later_versions_of_trace_context_are_read_as_the_first(interface, later):
    assert interface(None, trace=True)(("traceparent", later))[1] == TRACE


BAD = [
    "",
    PARENT.upper(),
    f"{PARENT}-x",
    f"{PARENT}\n",
    PARENT[:-1],
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{SPAN}-01",
    f"01-{TRACE}-{SPAN}-01x",
    f"00-{TRACE}-{SPAN}-0g",
]


@BOTH
@pytest.mark.parametrize(("given", "peer"), [*((bad, "127.0.0.1") for bad in BAD), (PARENT, "10.0.0.9")])
def test_another_trace_is_replaced_with_its_state(interface, given, peer):
    headers = [("traceparent", given), ("tracestate", "a=b")]
    _, trace, [(name, value)], seen = interface(None, trace=True)(*headers, peer=peer)
    assert trace != TRACE
    assert re.fullmatch(rf"00-{trace}-(?!0{{16}})[0-9a-f]{{16}}-01", value)
    assert name == "traceresponse"
    assert seen == [("traceparent", value)]


@BOTH
def test_a_trace_is_made(interface):
    make = interface(None, trace=True)
    made = {make()[1] for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(FRESH, trace) for trace in made)


def test_a_forked_child_makes_other_traces():
    make = Asgi(None, trace=True)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, make()[1].encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100).decode() != make()[1]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("own", [[], [(b"a", b"b")], ((b"a", b"b"), (b"y-request-id", b"c")), None])
def test_headers_are_added_to_a_copy(own):
    message = {"type": "http.response.start", "status": 200} | ({} if own is None else {"headers": own})
    before, added = dict(message), [(b"x-request-id", b"1"), (b"traceresponse", b"2")]
    for _ in range(2):
        answer = with_headers(message, added)
        assert answer == message | {"headers": [*(own or ()), *added]}
    assert message == before


@pytest.mark.parametrize("name", [b"x-request-id", b"X-Request-ID"])
def test_what_the_application_has_set_itself_stands(name):
    message = {"type": "http.response.start", "headers": [(b"a", b"b"), (name, b"own"), (name, b"too")]}
    added = [(b"x-request-id", b"1"), (b"traceresponse", b"2")]
    assert with_headers(message, added)["headers"] == [*message["headers"], (b"traceresponse", b"2")]
    assert with_headers(message, added[:1])["headers"] == message["headers"]


def test_headers_that_can_be_read_once_are_all_there():
    """The specification has an iterable: https://asgi.readthedocs.io/en/latest/specs/www.html."""
    own = [(b"content-type", b"text/plain"), (b"x-shop", b"1")]
    message = {"type": "http.response.start", "status": 200, "headers": iter(own)}
    answer = with_headers(message, [(b"x-request-id", b"a"), (b"x-shop", b"2")])
    assert answer["headers"] == [*own, (b"x-request-id", b"a")]
