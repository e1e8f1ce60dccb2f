"""What a worker says is checked: the application can write to the pipe too."""

from __future__ import annotations

import pytest

from mooring.plan.plan import Report
from mooring.worker import messages

READY = {"event": "ready", "interface": "asgi", "framework": "", "engine": "uvicorn", "target": "main:app"}


def test_a_message_comes_back_as_it_was_sent():
    line = messages.encode("ready", {**READY, "memory": 5 << 20})
    assert line.endswith(b"\n")
    assert messages.report(messages.decode(line)) == Report("asgi", "", "uvicorn", "main:app", 5 << 20)
    line = messages.encode("failed", {"message": "no", "code": 3})
    assert messages.failure(messages.decode(line)) == messages.Failure("no", 3)


@pytest.mark.parametrize("text", ["x" * 9000, "\x00" * 9000, "\U0001f600" * 9000, "é\n" * 5000])
def test_a_message_is_never_longer_than_a_pipes_atomic_write(text):
    line = messages.encode("failed", {"pid": 4194304, "message": text, "code": 3})
    assert len(line) <= 4096
    assert messages.failure(messages.decode(line)).message == text[: len(messages.decode(line)["message"])]


@pytest.mark.parametrize("line", [b"", b"x", b"7", b"null", b"[]", b"\xff", b"[" * 60000, b"1" * 5000, b"{"])
def test_what_is_no_message_is_none(line):
    assert messages.decode(line) is None


@pytest.mark.parametrize(
    "change",
    [
        {"event": "x"},
        {"interface": "cgi"},
        {"interface": 1},
        {"engine": "x"},
        {"engine": []},
        {"target": None},
    ],
)
def test_what_is_no_report_is_none(change):
    assert messages.report({**READY, **change}) is None


@pytest.mark.parametrize("memory", [None, True, -1, 0, 1.5, "5", 2**70, float("inf"), [], {}])
def test_an_impossible_size_is_unknown(memory):
    assert messages.report({**READY, "memory": memory}).memory is None


@pytest.mark.parametrize(
    "change", [{"code": 0}, {"code": 256}, {"code": True}, {"code": "3"}, {"message": 5}]
)
def test_what_is_no_failure_is_none(change):
    assert messages.failure({"event": "failed", "message": "no", "code": 3, **change}) is None


def test_gunicorns_number_of_workers():
    for event in ("ready", "size"):
        assert messages.size(messages.decode(messages.encode(event, {"workers": 3}))) == 3
    for each in (0, -1, "3", None, 1e9, 70000, True):
        assert messages.size({"event": "size", "workers": each}) is None
    assert messages.size({"event": "failed", "workers": 3}) is None
