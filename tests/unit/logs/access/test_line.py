"""Lines that have a name: what each says, that none can be forged, and that a pipe takes each whole."""

import json
import os
import random
import re

import pytest

from mooring.errors import ConfigurationError
from mooring.logs import escape
from mooring.logs.access.line import NAMES, formatter
from mooring.logs.access.parts import LONGEST
from mooring.logs.escape import AGENT_LIMIT, TARGET_LIMIT, agent_field, field, method_field

APACHE_DATE = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
LOG_DATE = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\]"
ENTRY = {
    "host": "10.0.0.1",
    "port": 5000,
    "method": "GET",
    "target": "/a?b=c",
    "version": "1.1",
    "status": 200,
    "size": 12,
    "seconds": 0.0015,
    "referer": "http://x/",
    "agent": "curl/8",
    "request_id": "id-1",
    "trace": "-",
    "extra": None,
}


def made(name, **changes):
    return formatter(name).line(tuple((ENTRY | changes).values()))


def as_json(**changes):
    line = made("json", **changes)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    return json.loads(line)


def test_the_form_without_a_profile_is_combined_with_the_duration():
    line = made("common")
    assert re.fullmatch(
        rf'10\.0\.0\.1 - - {APACHE_DATE} "GET /a\?b=c HTTP/1\.1" 200 12 "http://x/" "curl/8" 1500us\n', line
    )


def test_combined():
    line = made("combined", size=None, referer="-")
    assert re.fullmatch(rf'10\.0\.0\.1 - - {APACHE_DATE} "GET /a\?b=c HTTP/1\.1" 200 - "-" "curl/8"\n', line)


def test_hypercorns_form_has_no_query_and_no_protocol_name():
    line = made("hypercorn", size=None, referer="-", target="/?q")
    prefix = rf"{LOG_DATE} \[{os.getpid()}\] \[INFO\] "
    assert re.fullmatch(
        rf'{prefix}10\.0\.0\.1:5000 - - {APACHE_DATE} "GET / 1\.1" 200 - "-" "curl/8"\n', line
    )


def test_uvicorns_form():
    assert made("uvicorn") == '10.0.0.1:5000 - "GET /a?b=c HTTP/1.1" 200\n'
    assert made("uvicorn", host="unix", port=None) == 'unix - "GET /a?b=c HTTP/1.1" 200\n'


def test_uvicorns_form_with_live_reload():
    assert made("uvicorn-reload") == 'INFO:     10.0.0.1:5000 - "GET /a?b=c HTTP/1.1" 200 OK\n'
    assert made("uvicorn-reload", status=599) == 'INFO:     10.0.0.1:5000 - "GET /a?b=c HTTP/1.1" 599\n'
    handshake = made("uvicorn-reload", method=None, status=101)
    assert handshake == 'INFO:     10.0.0.1:5000 - "WebSocket /a?b=c" [accepted]\n'


def test_the_form_of_uvicorn_0_9():
    line = made("uvicorn-0.9", target="/")
    assert re.fullmatch(
        rf"{LOG_DATE} \[\d+\] \[INFO\] \('10\.0\.0\.1', 5000\) - \"GET / HTTP/1\.1\" 200\n", line
    )


@pytest.mark.parametrize(("status", "outcome"), [(101, "[accepted]"), (403, "403")])
def test_websocket_handshakes(status, outcome):
    assert made("uvicorn", method=None, status=status) == f'10.0.0.1:5000 - "WebSocket /a?b=c" {outcome}\n'
    assert f'"GET /a?b=c HTTP/1.1" {status} ' in made("combined", method=None, status=status)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0us"), (0.0000011, "1us"), (0.0010239, "1023us"), (0.001025, "1025us"), (61.5, "61500000us")],
)
def test_durations_of_the_common_form(seconds, shown):
    assert made("common", seconds=seconds).endswith(f'"curl/8" {shown}\n')


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 5_000_000_000])
@pytest.mark.parametrize("status", [200, 304, 404, 503, 799])
def test_numbers(status, size):
    pattern = rf'10\.0\.0\.1 - - {APACHE_DATE} "GET /a\?b=c HTTP/1\.1" {status} {size} "http://x/" "curl/8"\n'
    for _ in range(2):
        assert re.fullmatch(pattern, made("combined", status=status, size=size))
        assert as_json(status=status, size=size)["bytes"] == size


def test_the_date_follows_the_clock_in_both_directions(monkeypatch):
    now = 1_000_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.localtime", __import__("time").gmtime)
    lines = [formatter("common").line, formatter("json").line]
    entry = tuple(ENTRY.values())
    seen = []
    for now in (1_000_000_000.0, 1_000_000_000.9995, 1_000_000_001.0, 999_999_999.5):  # noqa: B007
        seen.append([re.search(r"01:4\d:\d\d(\.\d+)?", line(entry)).group() for line in lines])
    assert seen == [
        ["01:46:40", "01:46:40.000"],
        ["01:46:40", "01:46:40.999"],
        ["01:46:41", "01:46:41.000"],
        ["01:46:39", "01:46:39.500"],
    ]


def test_json_has_everything():
    found = as_json(trace="ab" * 16)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "client": "10.0.0.1",
        "method": "GET",
        "path": "/a",
        "query": "b=c",
        "http_version": "1.1",
        "status": 200,
        "bytes": 12,
        "duration_ms": 1.5,
        "referer": "http://x/",
        "user_agent": "curl/8",
        "request_id": "id-1",
        "trace_id": "ab" * 16,
    }


def test_json_says_null_for_what_is_not_there():
    found = as_json(host="-", target="/", size=None, referer="-", agent="-", request_id="-")
    missing = {name for name, value in found.items() if value is None}
    assert missing == {"client", "query", "bytes", "referer", "user_agent", "request_id", "trace_id"}
    assert as_json(target="/?")["query"] == ""


def test_json_calls_a_websocket_by_its_name():
    assert as_json(method=None, status=101)["method"] == "WEBSOCKET"


@pytest.mark.parametrize(
    "text",
    [
        'quo"te',
        "back\\slash",
        r"\x41 \n \u0041",
        "line\nfeed\r\t",
        "nul\0 esc\x1b del\x7f",
        "sep\u2028\u2029 rtl\u202e",
        "caf\u00e9 \u65e5\u672c",
        "private \U000f0000",
    ],
)
def test_json_gives_back_what_was_sent(text):
    found = as_json(target=field(f"/{text}?{text}".encode(), TARGET_LIMIT), agent=agent_field(text.encode()))
    assert (found["path"], found["query"], found["user_agent"]) == (f"/{text}", text, text)


def test_json_shows_a_byte_that_was_no_utf_8():
    assert as_json(target=field(b"/\xff\xed\xa0\x80", TARGET_LIMIT))["path"] == r"/\xff\xed\xa0\x80"


ALPHABETS = [bytes(range(256)), b'"\\\n\r{}x', "\u65e5\U0001f600".encode(), "\u2028\u202e\0".encode(), b"a"]


@pytest.mark.parametrize("name", [*NAMES, '%(h)s %(r)s "%(f)s" "%(a)s" %(a)s'])
def test_whatever_a_client_sends_a_line_is_one_line_that_a_pipe_takes_whole(name):
    chance, line = random.Random(3), formatter(name).line
    for turn in range(600):
        alphabet = ALPHABETS[turn % len(ALPHABETS)]
        # from 1 to more than all limits, odd lengths too: cut characters
        target, referer, agent, method = (
            bytes(chance.choices(alphabet, k=chance.choice((1, 7, chance.randrange(1, 4000)))))
            for _ in range(4)
        )
        entry = ENTRY | {
            "method": method_field(method.decode("latin-1")),
            "target": field(target, TARGET_LIMIT),
            "referer": agent_field(referer[: AGENT_LIMIT + 1]),
            "agent": agent_field(agent[: AGENT_LIMIT + 1]),
            "request_id": "x" * 128,
        }
        text = line(tuple(entry.values()))
        assert text.endswith("\n")
        assert text[:-1].isprintable()
        assert len(text.encode()) <= LONGEST
        if name == "json":
            assert json.loads(text)["status"] == 200
        elif not name.startswith("%"):
            assert " 200" in text


def test_what_json_keeps_is_bounded():
    line = formatter("json").line
    cells = dict(zip(line.__code__.co_freevars, line.__closure__, strict=True))
    for number in range(3000):
        line(tuple((ENTRY | {"target": f"/{number}", "agent": f"{number}"}).values()))
    kept = [cells[name].cell_contents.__self__ for name in ("quotes_of", "parts_of")]
    assert all(0 < len(texts) <= 256 for texts in kept)


def test_an_unknown_form_is_named_with_the_choices():
    with pytest.raises(
        ConfigurationError, match=r"^access_log_format: 'nope': expected one of common, .*%\(h\)s"
    ):
        formatter("nope")


def test_a_target_is_escaped_alike_whether_it_is_kept_or_not():
    for value in (
        b"/a?b",
        b"/\xff",
        b'/"',
        b"/" + b"a" * 3000,
        "/\u2028".encode(),
        "/caf\u00e9".encode(),
        b"/\\",
    ):
        for _ in range(40):
            assert (escape.kept_targets.get(value) or escape.target_field(value)) == field(
                value, TARGET_LIMIT
            )
    assert b"/a?b" in escape.kept_targets
    for number in range(40_000):
        escape.target_field(b"/%d" % number)
    assert len(escape.kept_targets) <= 256


def test_an_agent_is_escaped_alike_whether_it_is_kept_or_not():
    for value in (b"curl/8", b'a"\xff', b"a" * 513, b"a" * 5000, "caf\u00e9".encode()):
        for _ in range(2):
            shown = escape.kept_agents.get(value) or escape.kept_agent_field(value)
            assert shown == agent_field(value[: AGENT_LIMIT + 1])
    assert b"curl/8" in escape.kept_agents
    for number in range(1000):
        escape.kept_agent_field(b"%d" % number)
    assert len(escape.kept_agents) <= 256
