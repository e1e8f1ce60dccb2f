"""mooring's own log: the form of a record, what cannot forge one, and writing without waiting."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from mooring.logs.log import Log, LogFiles, open_log, wants_color
from mooring.logs.sink import FILE_PIECE, PIPE_BUF, Sink, pieces

RECORD = re.compile(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[([A-Z]+)\] (.*)\n")


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


def test_a_record_is_one_line_in_the_familiar_form(pipe):
    Log(pipe[1]).warning("disk \x1b[31mfull\x9bagain")
    found = RECORD.fullmatch(os.read(pipe[0], 65536))
    assert found
    assert found[1] == b"WARNING"
    assert found[2] == rb"disk \x1b[31mfull\x9bagain"


def test_a_traceback_is_indented_and_escaped(pipe):
    Log(pipe[1]).record("error", "failed", {}, traceback="Traceback:\n  File x\nError: \x07\n[2026] forged")
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert lines[1:] == ["  Traceback:", "    File x", r"  Error: \x07", "  [2026] forged"]


def test_json_is_one_valid_object_a_line_even_where_the_traceback_is_long(pipe):
    log = Log(pipe[1], form="json")
    log.record("error", "failed", {"serial": 3}, traceback="first\n" + "x\n" * 9000 + "last")
    line = os.read(pipe[0], 65536)
    assert len(line) <= PIPE_BUF
    found = json.loads(line)
    assert found["serial"] == 3
    assert found["traceback"].startswith("first\n")
    assert found["traceback"].endswith("last")
    log.error("é" * 9000)
    line = os.read(pipe[0], 65536)
    assert len(line) <= PIPE_BUF
    assert json.loads(line)["message"].startswith("é")


def test_a_file_takes_longer_lines(tmp_path: Path):
    path, trace = tmp_path / "log", "x\n" * 9000
    with path.open("w") as file:
        log = Log(file.fileno(), form="json")
        log.record("error", "failed", {}, traceback=trace)
        log.record("error", "failed", {}, traceback=trace * 9)
    first, second = path.read_bytes().splitlines(keepends=True)
    assert json.loads(first)["traceback"] == trace
    assert len(second) <= FILE_PIECE
    assert "\n...\n" in json.loads(second)["traceback"]


def test_levels_below_its_own_and_a_quiet_log_are_silent(pipe):
    Log(pipe[1], level="error").warning("no")
    Log(pipe[1], quiet=True).info("no")
    Log(pipe[1], quiet=True).warning("yes")
    assert b"yes" in os.read(pipe[0], 65536)


def test_a_full_pipe_is_not_waited_for_and_the_loss_is_told(pipe):
    log = Log(pipe[1])
    for _ in range(200):
        log.error("x" * 1000)
    assert log.dropped > 0
    os.read(pipe[0], 1 << 20)
    lost = log.dropped
    log.error("after")
    text = os.read(pipe[0], 65536).decode()
    assert f"{lost} log records were dropped" in text
    assert "after" in text
    assert os.get_blocking(pipe[1])  # the application's descriptor is as it was
    assert not os.get_blocking(log.fd)  # between poll and write another writer may take the room


def test_a_full_socket_is_not_waited_for():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = Log(theirs.fileno())
        for _ in range(2000):
            log.error("x" * 1000)
        assert log.dropped > 0
        assert ours.recv(100).startswith(b"[")
        assert theirs.getblocking()


def test_a_reader_that_is_gone_is_no_error():
    read, write = os.pipe()
    log = Log(write)
    os.close(read)
    log.error("into the void")
    Sink(write).write(b"void\n")
    os.close(write)
    assert log.dropped == 1


def test_pieces_are_whole_lines_of_at_most_pipe_buf():
    data = b"".join(b"%d " % number + b"x" * (number % 700) + b"\n" for number in range(100))
    found = list(pieces(data))
    assert b"".join(found) == data
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in found)
    (cut,) = pieces(b"y" * 9000 + b"\n")
    assert len(cut) == PIPE_BUF
    assert cut.endswith(b"y...\n")


# -- colours -----------------------------------------------------------------------------------------------

XTERM = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (XTERM, True),
        ({}, False),
        ({"TERM": ""}, False),
        ({"TERM": "dumb"}, False),
        ({**XTERM, "NO_COLOR": "1"}, False),
        ({**XTERM, "NO_COLOR": ""}, True),  # no-color.org: "when present and not an empty string"
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1"}, True),
        ({**XTERM, "FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_a_terminal_is_coloured_unless_it_is_told_not_to_be(environ, expected):
    master, slave = os.openpty()
    try:
        assert wants_color(slave, environ) is expected
    finally:
        os.close(master)
        os.close(slave)


def test_nothing_else_is_ever_coloured(pipe, tmp_path: Path):
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "log").open("w") as file:
        for fd in (pipe[1], theirs.fileno(), file.fileno()):
            assert not wants_color(fd, {**XTERM, "FORCE_COLOR": "1"})


def test_where_a_log_goes(tmp_path: Path):
    assert [open_log(path, 2) for path in (None, "-", "", "/dev/stdout", "/dev/stderr")] == [2, 2, 2, 1, 2]
    with pytest.raises(FileNotFoundError):
        open_log(str(tmp_path / "no" / "log"), 2)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        open_log(str(tmp_path / "fifo"), 2)  # it does not wait for a reader


def test_files_are_reopened_at_the_same_descriptor(tmp_path: Path):
    files, path = LogFiles(), tmp_path / "log"
    fd = files.open(str(path), 2)
    assert files.open("-", 1) == 1
    os.write(fd, b"old\n")
    assert path.stat().st_mode & 0o777 == 0o640  # lines tell who asked for what
    path.rename(tmp_path / "log.1")
    assert files.reopen() == []
    os.write(fd, b"new\n")
    assert path.read_text() == "new\n"
    assert not os.get_inheritable(fd)
    path.unlink()
    path.mkdir()
    (refused,) = files.reopen()
    assert "cannot be opened again: Is a directory" in refused
    os.write(fd, b"kept\n")
    os.close(fd)
