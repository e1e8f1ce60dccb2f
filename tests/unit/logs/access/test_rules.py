"""What the access log leaves out, and what it shows a share of."""

import threading

import pytest

from mooring.errors import ConfigurationError
from mooring.logs.access.rules import parse
from mooring.settings import parsers

CODED = pytest.mark.parametrize("coded", [str.encode, lambda path: path.encode().decode("latin-1")])


def rules(*skip, sample=()):
    return parse(skip, tuple(sample)).wanted


def shown(wanted, calls, path=b"/", status=200):
    return [number for number in range(calls) if wanted(path, status)]


def test_without_items_there_is_nothing_to_ask():
    assert parse((), ()) is None


@CODED
def test_a_path_may_end_like_a_class_of_statuses(coded):
    """`/2xx` was taken for a class, and was an error of Python's at the start."""
    wanted = rules("/2xx", "/200", sample=["/fooxx=0"])
    for path in ("/2xx", "/200", "/fooxx"):
        assert not wanted(coded(path), 200)
    assert wanted(coded("/"), 200)


@CODED
def test_paths_are_left_out(coded):
    wanted = rules("/healthz", "/static/*", "/caf\u00e9")
    for path in ("/healthz", "/static/", "/static/a/b.css", "/caf\u00e9"):
        assert not wanted(coded(path), 200)
        assert not wanted(coded(path), 404)
    for path in ("/", "/healthz/", "/healthz2", "/static", "/a/static/x"):
        assert wanted(coded(path), 200)


def test_statuses_are_left_out():
    wanted = rules("304", "2XX", "404")
    assert [status for status in (101, 200, 204, 299, 301, 304, 404, 405) if wanted(b"/", status)] == [
        101,
        301,
        405,
    ]


@pytest.mark.parametrize("skip", ["/*", "4xx"])
def test_a_5xx_is_always_shown(skip):
    wanted = rules(skip, sample=["/a*=0"])
    assert not wanted(b"/a", 404)
    assert all(wanted(path, status) for path in (b"/a", "/a") for status in (500, 502, 503, 599))


def test_a_5xx_is_left_out_where_it_is_named():
    assert [status for status in (500, 503, 504) if rules("503")(b"/", status)] == [500, 504]
    assert not rules("5xx")("/", 500)
    assert shown(rules(sample=["5xx=0.5"]), 4, status=502) == [0, 2]


def test_shares_are_exact_and_even():
    assert shown(rules(sample=["2xx=0.1"]), 31) == [0, 10, 20, 30]
    assert shown(rules(sample=["/*=.25"]), 9) == [0, 4, 8]
    assert len(shown(rules(sample=["200=0.3"]), 100_000)) == 30_000
    assert len(shown(rules(sample=["/=0.001"]), 100_000)) == 100
    assert shown(rules(sample=["/=0"]), 100) == []
    assert shown(rules(sample=["/=1.0"]), 100) == list(range(100))


def test_a_share_is_exact_with_threads_too():
    wanted, kept = rules(sample=["2xx=0.01"]), []
    threads = [threading.Thread(target=lambda: kept.extend(shown(wanted, 5000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 400


def test_the_nearest_share_counts_alone():
    wanted = rules(sample=["/a=1", "/a/*=0.5", "/a/b/*=0", "200=0.25", "2xx=0"])
    assert len(shown(wanted, 8, b"/a")) == 8
    assert len(shown(wanted, 8, b"/a/x")) == 4
    assert len(shown(wanted, 8, b"/a/b/x")) == 0
    assert len(shown(wanted, 8, b"/x")) == 2
    assert len(shown(wanted, 8, b"/x", 201)) == 0
    assert len(shown(wanted, 8, b"/x", 301)) == 8


def test_rules_count_apart():
    wanted = rules(sample=["/a=0.5", "/b=0.5"])
    assert [wanted(path, 200) for path in (b"/a", b"/b", b"/a", b"/b")] == [True, True, False, False]


def test_what_is_left_out_is_not_sampled():
    wanted = rules("/a*", "304", sample=["/a/b=1", "/c=1"])
    assert not wanted(b"/a/b", 200)
    assert not wanted(b"/c", 304)


@pytest.mark.parametrize("item", ["x", "", "/a*b", "/a b", "/a?b", "*", "600", "20x", "6xx", "2xx=0.1", "-1"])
def test_bad_items_of_skip(item):
    with pytest.raises(ConfigurationError, match=r"^access_log_skip: .*: expected paths \(/healthz"):
        parse(("/fine", item), ())
    if item:
        with pytest.raises(ValueError, match=r"^paths .*, not '"):
            parsers.access_log_skip(f"/fine,{item}")


@pytest.mark.parametrize(
    "item",
    ["/a", "/a=", "=0.5", "/a=2", "/a=1.1", "/a=-0.1", "/a=1e-3", "/a=x", "/a=.", "20=1", "/a*b=1", "/a=nan"],
)
def test_bad_items_of_sample(item):
    with pytest.raises(
        ConfigurationError, match=r"^access_log_sample: .*: expected paths and statuses with a share"
    ):
        parse((), ("/fine=1", item))
    with pytest.raises(ValueError, match=r"a share from 0 to 1, .*, not '"):
        parsers.access_log_sample(f"/fine=1,{item}")


def test_a_path_with_an_equals_sign():
    assert shown(rules(sample=["/a=b=0.5"]), 4, b"/a=b") == [0, 2]


def test_the_settings_keep_their_items():
    assert parsers.access_log_skip(" /a , 2xx,") == ("/a", "2xx")
    assert parsers.access_log_sample("/a=0.5") == ("/a=0.5",)
    assert parsers.line_format("json") == "json"
    assert parsers.line_format("%(h)s, %(s)s") == "%(h)s, %(s)s"
    for text in ("nope", "%(zz)s"):
        with pytest.raises(ValueError, match=r"^(one of common|%\(ATOM\)s with h l u)"):
            parsers.line_format(text)


def test_the_header_of_request_ids():
    assert parsers.header_name("X-Correlation-ID") == "x-correlation-id"
    for text in ("Host", "x y", "x_y", "cookie", "x:", "traceparent", "h\u00e9"):
        with pytest.raises(ValueError, match="such as x-request-id"):
            parsers.header_name(text)
