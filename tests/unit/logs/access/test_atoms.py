"""Format strings: gunicorn's atoms, as gunicorn itself gives them."""

import base64
import datetime
import os
import re
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger, SafeAtoms
from hypercorn.config import Config as HypercornConfig

from mooring.errors import ConfigurationError
from mooring.logs.access.line import formatter

BASIC = "Basic " + base64.b64encode(b"ann:hidden-word").decode()
ENVIRON = {
    "REMOTE_ADDR": "10.0.0.1",
    "REQUEST_METHOD": "POST",
    "RAW_URI": "/a/b?c=d",
    "PATH_INFO": "/a/b",
    "QUERY_STRING": "c=d",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_REFERER": "http://x/",
    "HTTP_USER_AGENT": "curl/8",
    "HTTP_AUTHORIZATION": BASIC,
    "HTTP_X_THING": 'quo"te',
    "CONTENT_TYPE": "text/plain",
    "wsgi.url_scheme": "https",
    "wsgi.input": object(),
}
REQUEST_HEADERS = [("AUTHORIZATION", BASIC), ("X-THING", 'quo"te'), ("CONTENT-TYPE", "text/plain")]
ANSWER = [("Content-Type", "text/html"), ("X-Out", "one"), ("x-out", "two"), ("Set-Cookie", "session=1")]
SCOPE = {
    "type": "http",
    "scheme": "https",
    "method": "POST",
    "path": "/a/b",
    "query_string": b"c=d",
    "http_version": "1.1",
    "client": ("10.0.0.1", 5000),
    "headers": [(name.lower().encode(), value.encode()) for name, value in REQUEST_HEADERS],
}
ASGI = (SCOPE, [(name.lower().encode(), value.encode()) for name, value in ANSWER])
WSGI = (ENVIRON, ANSWER)
BOTH = pytest.mark.parametrize("extra", [ASGI, WSGI], ids=["asgi", "wsgi"])

HEADERS = ("{x-thing}i", "{X-Thing}i", "{none}i", "{content-type}i", "{content-type}o", "{x-out}o", "{none}o")
VARIABLES = ("{request_method}e", "{REMOTE_ADDR}e", "{none}e", "{wsgi.url_scheme}e")
ATOMS = (*"hlutrsmUqHbBfaTDMLp", *HEADERS, *VARIABLES)


def entry(extra=None, **changes):
    values = {
        "host": "10.0.0.1",
        "port": 5000,
        "method": "POST",
        "target": "/a/b?c=d",
        "version": "1.1",
        "status": 201,
        "size": 12,
        "seconds": 1.234567,
        "referer": "http://x/",
        "agent": "curl/8",
        "request_id": "id-1",
        "trace": "ab" * 16,
        "extra": extra,
    }
    return tuple((values | changes).values())


def made(text, extra=None, **changes):
    return formatter(text).line(entry(extra, **changes)).removesuffix("\n")


@BOTH
@pytest.mark.parametrize("atom", ATOMS)
def test_an_atom_is_what_gunicorn_gives(atom, extra):
    answer = SimpleNamespace(status="201 Created", sent=12, headers=ANSWER)
    request = SimpleNamespace(headers=REQUEST_HEADERS)
    took = datetime.timedelta(seconds=1.234567)
    theirs = SafeAtoms(Logger(Config()).atoms(answer, request, ENVIRON, took))
    text = f"%({atom})s"
    expected = text % theirs
    if atom == "t":
        assert re.sub(r":\d\d ", " ", made(text, extra)) == re.sub(r":\d\d ", " ", expected)
    else:
        assert made(text, extra) == expected


def test_mooring_s_own_and_hypercorn_s():
    assert made("%(rid)s %(tid)s", None) == f"id-1 {'ab' * 16}"
    assert made("%(st)s %(R)s %(Uq)s %(S)s", ASGI) == "Created POST /a/b?c=d HTTP/1.1 /a/b?c=d https"


def test_text_around_percent_signs_numbers_and_widths():
    assert (
        made("100%% [%(s)d] %(M)06d|%(h)-10s|%(s)5s|\t%(h)s%%")
        == "100% [201] 001234|10.0.0.1  |  201|\t10.0.0.1%"
    )


@BOTH
def test_what_is_missing_is_a_dash(extra):
    empty = ({"headers": []} if extra is ASGI else {}, [])
    text = "%(u)s %({x}i)s %({x}o)s %({x}e)s %(S)s %(b)s %(f)s %(a)s %(rid)s %(tid)s"
    values = {"size": None, "referer": "-", "agent": "-", "request_id": "-", "trace": "-"}
    assert made(text, empty, **values) == " ".join("-" * 10)
    assert made(text, (empty[0], None), **values) == " ".join("-" * 10)


@pytest.mark.parametrize(
    "name", ["authorization", "Cookie", "x-api-key", "X-Auth-Token", "x-csrftoken", "x-secret"]
)
def test_secret_headers_are_hidden_though_asked_for(name):
    scope = {"headers": [(name.lower().encode(), b"hunter2")]}
    environ = {f"HTTP_{name.upper().replace('-', '_')}": "hunter2"}
    variable = f"HTTP_{name.upper().replace('-', '_')}"
    for request in (scope, environ):
        assert made(f"%({{{name}}}i)s %({{{variable}}}e)s", (request, [])) == "(hidden) (hidden)"
    assert made(f"%({{{name}}}o)s", (scope, [(name.encode(), b"hunter2")])) == "(hidden)"
    assert made("%({set-cookie}o)s", WSGI) == "(hidden)"


@pytest.mark.parametrize("name", ["x-author", "accept", "x-request-id", "sec-websocket-key"])
def test_others_are_not(name):
    assert made(f"%({{{name}}}i)s", ({"headers": [(name.encode(), b"v")]}, [])) == "v"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Basic !!!", "-"),
        ("Basic " + base64.b64encode(b"nocolon").decode(), "-"),
        ("Bearer abc", "-"),
        ("basic " + base64.b64encode(b'a"\n\xff:x').decode(), r"a\"\n\xff"),
    ],
)
def test_the_user(given, shown):
    assert made("%(u)s", ({"HTTP_AUTHORIZATION": given}, [])) == shown
    assert made("%(u)s", ({"headers": [(b"authorization", given.encode())]}, [])) == shown


@BOTH
def test_no_header_forges_a_line(extra):
    nasty = 'a"b\\c\nd\x1b\u2028'
    if extra is ASGI:
        request = {"headers": [(b"x-a", nasty.encode()), (b"x-b", b"\xff")], "path": nasty}
        answer = [(b"x-o", nasty.encode())]
    else:
        coded = nasty.encode().decode("latin-1")
        request, answer = {"HTTP_X_A": coded, "HTTP_X_B": "\xff", "PATH_INFO": coded}, [("X-O", coded)]
    shown = r"a\"b\\c\nd\x1b\u2028"
    assert made("%({x-a}i)s", (request, answer)) == shown
    assert made("%({x-o}o)s", (request, answer)) == shown
    assert made("%({PATH_INFO}e)s", (request, answer)) == shown
    assert made("%({HTTP_X_B}e)s", (request, answer)) == r"\xff"


def test_many_long_headers_are_cut_with_the_line():
    request = {"headers": [(b"x", "\u65e5".encode() * 200)]}
    line = formatter("%(s)s " + "%({x}i)s " * 40).line(entry((request, [])))
    assert line.startswith("201 ")
    assert line.endswith("...\n")
    assert len(line.encode()) < 4096


def test_a_line_asks_for_what_it_shows():
    assert formatter("%(h)s %(s)s")[1:] == (False, False, False, False, None)
    assert formatter("%(a)s").headers
    assert not formatter("%(a)s").full
    assert formatter("%(rid)s").ids
    assert formatter("%({X-Request-Id}o)s").ids
    assert formatter("json").ids
    assert not formatter("common").ids
    assert all(formatter(text).full for text in ("%({x}i)s", "%({x}o)s", "%({x}e)s", "%(u)s", "%(S)s"))


@pytest.mark.parametrize(
    "text", ["%(zz)s", "%(h)s %s", "%(h)s 5%", "%(h)d", "%({x}d)s", "%(h)r", "%(h)s\n", "%(h", "%()s"]
)
def test_a_bad_text_is_named_with_the_atoms(text):
    with pytest.raises(ConfigurationError, match=r"^access_log_format: .*expected .* h l u t r"):
        formatter(text if "%(" in text else f"%(h)s{text}")


def test_the_process_is_the_one_that_runs():
    assert made("%(p)s") == f"<{os.getpid()}>"


def test_the_servers_own_forms_are_understood():
    combined = made(Config().access_log_format, WSGI)
    assert combined.startswith("10.0.0.1 - ann [")
    assert combined.endswith('] "POST /a/b?c=d HTTP/1.1" 201 12 "http://x/" "curl/8"')
    assert '] "POST /a/b?c=d HTTP/1.1" 201 12 "http://x/" "curl/8"' in made(
        HypercornConfig().access_log_format, ASGI
    )
