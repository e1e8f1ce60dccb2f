"""A record as text and as JSON: the same fields, one line that nothing forges, whatever is in it."""

from __future__ import annotations

import json
import math
import os
import re
import time
from typing import Any

import pytest

from mooring.logs.log import Log
from mooring.logs.record import Record, as_json, as_text
from mooring.settings import engines
from mooring.supervisor import notices
from mooring.supervisor.lifecycle import Notice

NOW = 1795236302.0259
WIDE = 1 << 20


def record(message: str = "hello", **more: Any) -> Record:
    given: dict[str, Any] = {"level": "info", "logger": "mooring", **more}
    return Record(time=NOW, pid=7, message=message, **given)


def text(message: str = "hello", **more: Any) -> str:
    return as_text(record(message, **more), engines=engines.logger_roots()).decode()


def loaded(line: bytes) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    return dict(json.loads(line, parse_constant=refuse))


# -- the same fields in both -------------------------------------------------------------------------------


def test_json_has_the_time_in_iso_8601_with_milliseconds_and_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        found = loaded(as_json(record(), WIDE))
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert found["time"] == "2026-11-21T10:30:02.025+05:45"
    assert list(found) == ["time", "level", "pid", "logger", "message"]


def test_text_says_what_json_says():
    fields = {"slot": 3, "why": "it ended", "rate": 0.5, "failed": True, "nothing": None, "path": "/a=b"}
    shown = text("it exited", level="error", logger="app.orders", fields=fields, traceback="Trace\nError: x")
    assert re.fullmatch(
        r"\[2026-11-2\d \d\d:\d\d:02 [+-]\d{4}\] \[7\] \[ERROR\] app\.orders: it exited "
        r'slot=3 why="it ended" rate=0\.5 failed=true nothing=null path="/a=b"\n  Trace\n  Error: x\n',
        shown,
    )
    found = loaded(as_json(record(fields=fields), WIDE))
    assert {name: found[name] for name in fields} == fields


def test_fields_that_the_message_says_are_not_said_twice():
    assert text("worker 3", fields={"slot": 3, "size": 2}, told=frozenset({"slot"})).endswith(
        "worker 3 size=2\n"
    )


@pytest.mark.parametrize("logger", ["mooring", "root", "uvicorn.error", "_granian.workers", "gunicorn.error"])
def test_the_lines_of_mooring_and_the_engines_are_as_people_know_them(logger):
    shown = text("Application startup complete.", logger=logger)
    assert shown.endswith("[7] [INFO] Application startup complete.\n")


def test_an_announcement_says_each_of_its_data_once(pipe_log):
    data = {"serial": 4, "slot": 0, "generation": 2, "seconds": 0.31499}
    notices.tell(pipe_log.log, Notice.READY, data)
    assert pipe_log.read().endswith("worker 0 is ready after 0.31 s serial=4 generation=2\n")
    pipe_log.log.form = "json"
    notices.tell(pipe_log.log, Notice.READY, data)
    found = loaded(pipe_log.read().encode())
    assert found.items() >= {"notice": "ready", "slot": 0, "generation": 2, "seconds": 0.315}.items()
    notices.tell(
        pipe_log.log, Notice.BACKOFF, {"slot": 1, "seconds": math.inf, "failures": 1, "why": "broken"}
    )
    assert loaded(pipe_log.read().encode())["seconds"] is None


@pytest.fixture
def pipe_log():
    class Written:
        def __init__(self) -> None:
            self.ends = os.pipe()
            self.log = Log(self.ends[1])

        def read(self) -> str:
            return os.read(self.ends[0], WIDE).decode()

    written = Written()
    yield written
    for fd in {*written.ends, written.log.fd}:
        os.close(fd)


# -- nothing forges a line ---------------------------------------------------------------------------------

EVIL = "a\n[2026-01-01 00:00:00 +0000] [1] [INFO] forged\r\x1b[31m\x9b\u2028\u202e\udcff\x00\x7f"


def test_whatever_is_in_it_a_record_begins_one_line_only():
    shown = text(EVIL, logger=f"app{EVIL}", fields={f"name{EVIL}": EVIL, "list": [EVIL]}, traceback=EVIL)
    first, *rest = shown.splitlines()
    assert first.startswith("[")
    assert all(line.startswith("  ") for line in rest)
    assert all(char.isprintable() or char == "\n" for char in shown)


def test_json_is_strict_whatever_is_in_it():
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[Any] = []
    loop.append(loop)
    fields = {
        "evil": EVIL, f"name{EVIL}": 1, "nan": math.nan, "inf": -math.inf, "big": 1 << 80, "bytes": b"\xff",
        "broken": Broken(), "set": {1}, "map": {(1, 2): {"deep": [[[[1]]]]}}, "loop": loop, "long": 10**5000,
        "time": "forged", "level": "forged", "message": "forged", "pid": 0, "traceback": "forged",
    }  # fmt: skip
    found = loaded(as_json(record(EVIL, fields=fields, traceback=EVIL), WIDE))
    json.dumps(found).encode("utf-8")
    assert found["pid"] == 7
    assert found["level"] == "info"
    assert found["extra_level"] == "forged"
    assert found["broken"] == "<Broken>"
    assert found["nan"] is found["inf"] is None
    assert found["traceback"].startswith("a\n[2026")
    assert "\\udcff" in found["message"]
    text("x", fields=fields)


@pytest.mark.parametrize("limit", [300, 4096])
@pytest.mark.parametrize("char", ["x", "\n", "é", "\U0001f600", "\x00", '"'])
def test_a_line_is_never_longer_than_the_limit_and_keeps_head_and_tail(limit, char):
    long = "first" + char * 9000 + "last"
    for found in (
        record(traceback=long),
        record(long),
        record("kept", fields={"long": long, "list": [long] * 9, "n": 3}),
        record("kept", fields={f"name{number}": number for number in range(2000)}),
        record("kept", fields={long: 1}),
        record(long, logger=long, fields={"long": long}, traceback=long),
    ):
        line = as_json(found, limit)
        assert len(line) <= limit
        assert loaded(line).keys() >= {"time", "level", "pid", "logger", "message"}
    kept = loaded(as_json(record("kept", fields={"slot": 3}, traceback=long), 4096))
    assert (kept["message"], kept["slot"]) == ("kept", 3)
    assert kept["traceback"].startswith("first")
    assert kept["traceback"].endswith("last")
    assert len(as_json(record(traceback=long), 4096)) > 3000  # and not much shorter than it may be


# -- colours -----------------------------------------------------------------------------------------------


def test_colours_frame_the_text_and_do_not_part_it():
    shown = as_text(record("Application startup complete."), colored=True).decode()
    assert "[INFO] Application startup complete.\n" in shown
    shown = as_text(record("failed \x1b[0m", level="error"), colored=True).decode()
    assert shown.endswith("\x1b[31m[ERROR] failed \\x1b[0m\x1b[0m\n")
    bare = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert bare == text("failed \x1b[0m", level="error")
