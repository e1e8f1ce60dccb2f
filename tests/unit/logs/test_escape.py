import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.logs.escape import (
    AGENT_LIMIT,
    TARGET_LIMIT,
    agent_field,
    escape,
    escape_quoted,
    field,
    latin_agent_field,
    latin_field,
    method_field,
)

UNESCAPED_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text, 100 % of it", "plain text, 100 % of it"),
        ("a\nb", r"a\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("caf\u00e9 \u4e2d", "caf\u00e9 \u4e2d"),
        ("\u202eright to left", r"\u202eright to left"),
        ("line\u2028separator", r"line\u2028separator"),
        ("\U000e0001 tag", r"\U000e0001 tag"),
        (b"\xff\xc3".decode("utf-8", "surrogateescape"), r"\xff\xc3"),
        (r"C:\path", r"C:\path"),
        ('say "hi"', 'say "hi"'),
    ],
)
def test_what_cannot_be_printed_is_escaped(raw, shown):
    assert escape(raw) == shown


def test_between_quotes_also_quotes_and_backslashes_are_escaped():
    assert escape_quoted('a "b" \\ c\n') == r"a \"b\" \\ c\n"


def test_clean_text_is_the_same_object():
    text = "GET /items/42"
    assert escape(text) is text
    assert escape_quoted(text) is text


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_no_text_can_end_a_line_or_steer_a_terminal(text):
    for shown in (escape(text), escape_quoted(text)):
        assert shown.isprintable()
        assert shown.splitlines() in ([], [shown])
        shown.encode("utf-8")


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(4, 60))
def test_no_field_can_leave_its_quotes(value, limit):
    for shown in (field(value, limit), latin_field(value.decode("latin-1"), limit)):
        assert shown.isprintable()
        assert not UNESCAPED_QUOTE.search(shown.replace("\\\\", ""))
        assert len(shown) <= limit + 3


@settings(deadline=None)
@given(st.text(max_size=40))
def test_bytes_and_their_latin_1_form_are_shown_alike(text):
    value = text.encode("utf-8", "replace")
    assert field(value, 2000) == latin_field(value.decode("latin-1"), 2000)


def test_long_fields_are_cut_and_say_so():
    assert field(b"a" * 10, 10) == "a" * 10
    assert field(b"a" * 11, 10) == "a" * 10 + "..."
    assert agent_field(b"a" * (AGENT_LIMIT + 1)) == "a" * AGENT_LIMIT + "..."
    assert latin_agent_field("a" * (AGENT_LIMIT + 1)) == "a" * AGENT_LIMIT + "..."
    assert len(field(b"\x1b" * TARGET_LIMIT, TARGET_LIMIT)) == TARGET_LIMIT + 3


def test_unusual_methods_are_escaped():
    assert method_field("GET") == "GET"
    assert method_field("PROPFIND") == "PROPFIND"
    assert method_field('X" 200\n') == r"X\" 200\n"
