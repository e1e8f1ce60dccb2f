"""The accelerator against what specifies it: the same requests, the same lines, the same row."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mooring.instrument.asgi import wrap_asgi
from mooring.instrument.meter import Lines, Meter
from mooring.logs.access.line import formatter
from mooring.scoreboard import accelerator
from mooring.scoreboard.ring import FULL, SIZE, Reader, Rings, writer
from mooring.scoreboard.row import BUCKETS, DURATIONS, HISTOGRAM, Row

pytestmark = pytest.mark.skipif(accelerator.c is None, reason="mooring was installed without a compiler")

_DATE = re.compile(r"\[\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}\]")
_bytes = st.one_of(
    st.sampled_from([b"", b"/", b"/items/7", b'/"quoted"', b"/\\", b"/\xc3\xa4", b"/\xff\n\x1b[2J"]),
    st.binary(max_size=40),
    st.binary(min_size=1, max_size=20).map(lambda some: some * 150),
)
_texts = st.one_of(st.sampled_from(["127.0.0.1", "", "::1", "\ud800", "host-ä"]), st.text(max_size=20))
_headers = st.lists(
    st.tuples(
        st.sampled_from([b"user-agent", b"referer", b"host", b"User-Agent"]),
        st.one_of(_bytes, st.just(b"curl/7.88.1")),
    ),
    max_size=4,
)
_scopes = st.fixed_dictionaries(
    {
        "type": st.just("http"),
        "method": st.sampled_from(["GET", "HEAD", "POST", "BREW", 'G"ET', ""]),
        "raw_path": _bytes.filter(bool),
        "path": st.just("/"),
        "query_string": _bytes,
        "http_version": st.sampled_from(["1.0", "1.1", "2"]),
        "client": st.one_of(
            st.none(), st.tuples(_texts, st.integers(0, 65535)), st.builds(lambda host: [host, 1], _texts)
        ),
        "headers": st.one_of(_headers, _headers.map(tuple), st.just([])),
    }
)
_start = st.fixed_dictionaries(
    {"type": st.just("http.response.start"), "status": st.integers(100, 599), "headers": st.just([])}
)
_part = st.fixed_dictionaries(
    {"type": st.just("http.response.body")},
    optional={"body": st.binary(max_size=20), "more_body": st.booleans()},
)
_messages = st.one_of(
    st.tuples(_start, _part).map(list),
    st.lists(st.one_of(_start, _part), max_size=4),
)
# What an application may send by mistake, and what an engine of tomorrow may have in its scope.
_odd_start = st.fixed_dictionaries(
    {"type": st.just("http.response.start")},
    optional={
        "status": st.sampled_from([200, HTTPStatus.NOT_FOUND, "200", None, 200.0, 0, 700]),
        "headers": st.sampled_from([None, (), [("text", "text")], [(b"a", b"b")], 7]),
    },
)
_odd_part = st.fixed_dictionaries(
    {"type": st.just("http.response.body")},
    optional={
        "body": st.sampled_from([b"x", None, "text", bytearray(b"xx"), memoryview(b"x"), [1], 7]),
        "more_body": st.sampled_from([True, None, "", 1, []]),
    },
)
_odd_other = st.sampled_from(
    [
        {},
        {"type": None},
        {"type": b"http.response.body"},
        {"type": "http.response.pathsend", "path": None},
        [],
    ]
)
_odd_messages = st.lists(st.one_of(_odd_start, _odd_part, _odd_other), max_size=4)
_odd_headers = st.lists(
    st.tuples(
        st.sampled_from([b"referer", "referer", b"user-agent", None]),
        st.sampled_from([b"x", "x", None, bytearray(b"x")]),
    ),
    max_size=3,
).flatmap(lambda some: st.sampled_from([some, tuple(some), list(map(list, some)), None]))


def _serve(scope, messages, raising, form, wanted, drains):
    """The lines, the row's counts, what the engine was sent, and what the caller saw."""
    rings = Rings()
    row = Row()
    meter = Meter(row, Lines(formatter(form), writer(rings.fd, 0, rings.wake), wanted, "-"))
    if drains:
        meter.drain.begin()
    sent, seen = [], ""

    async def application(_scope, _receive, send):
        for message in messages:
            await send(dict(message) if message.__class__ is dict else message)
        if raising:
            raise LookupError

    async def send(message):
        sent.append(message)

    wrapped = wrap_asgi(application, lambda _scope: None, "", meter)
    try:
        asyncio.run(wrapped(dict(scope), None, send))
    except Exception as error:
        seen = type(error).__name__
    rings.give(0)
    reader = Reader(rings.fd)
    reader.indices()
    lines = _DATE.sub("[date]", reader.take(0).decode())
    counts = row.counts()
    histogram = counts[HISTOGRAM : HISTOGRAM + BUCKETS]
    assert (counts[DURATIONS] > 0) == (sum(histogram) > 0)
    counts[DURATIONS] = 0.0
    rings.close()
    assert row.in_flight(0.0) == []
    return lines, counts[:HISTOGRAM], sum(histogram), sent, seen


@pytest.mark.parametrize("form", ["combined", "uvicorn"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scope=_scopes, messages=_messages, raising=st.booleans(), skip=st.booleans(), drains=st.booleans())
def test_requests_are_counted_and_logged_alike(form, scope, messages, raising, skip, drains):
    def wanted(_path, status):
        return status < 400

    given_ = (scope, messages, raising, form, wanted if skip else None, drains)
    fast = _serve(*given_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "c", None)
        assert fast == _serve(*given_)


@pytest.mark.parametrize("form", ["combined", "uvicorn"])
@settings(max_examples=150, deadline=None)
@given(scope=_scopes, headers=_odd_headers, messages=_odd_messages, raising=st.booleans())
def test_mistakes_are_met_alike(form, scope, headers, messages, raising):
    given_ = ({**scope, "headers": headers}, messages, raising, form, None, False)
    fast = _serve(*given_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "c", None)
        assert fast == _serve(*given_)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3 * FULL), st.booleans(), st.floats(0, 0.1)),
        min_size=1,
        max_size=40,
    )
)
def test_a_ring_holds_the_same(writes):
    """Lines of any length, a reader that comes now and then: the same bytes, the same refusals."""

    def fill():
        rings = Rings()
        write = writer(rings.fd, 0, rings.wake)
        rings.give(0)
        reader = Reader(rings.fd)
        reader.indices()
        found, now = [], 1.0
        for number, (length, read, later) in enumerate(writes):
            now += later
            found.append(write(bytes([number + 1]) * length, now))
            if read:
                taken = reader.take(0)
                reader.done(0, len(taken))
                found.append(taken)
        found.append(reader.take(0))
        rings.close()
        return found

    fast = fill()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "c", None)
        assert fast == fill()


def test_it_refuses_memory_that_is_no_ring_and_no_row():
    with pytest.raises(ValueError, match="smaller than a ring"):
        accelerator.c.Writer(bytearray(4096), 0, 4096, SIZE, FULL, 0.05)
    with pytest.raises(ValueError, match="not in that row"):
        accelerator.row(type("Small", (), {"data": bytearray(64)}))
    rest = (None, None, None, None, None, None, None, "-", frozenset(), {}, None, {}, None, None, False)
    asgi = accelerator.c.Asgi(accelerator.row(Row()), *rest)
    with pytest.raises(TypeError, match="exchange"):
        asgi.sending([], {})
