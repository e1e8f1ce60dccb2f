"""The log writer's keeper where the system refuses: what cannot be brought about from outside."""

import os
import resource
from contextlib import suppress
from time import monotonic, sleep

import pytest
from forks import forked

from mooring.logs.access import keeper as keeper_module
from mooring.logs.access.keeper import LogKeeper
from mooring.logs.log import Log, LogFiles
from mooring.scoreboard.ring import writer
from mooring.system.process import Reaped


def test_a_fork_that_is_refused_is_tried_again_and_costs_no_line(tmp_path):
    """EAGAIN: as a user that may have no more processes, and then may again."""
    access = os.open(tmp_path / "access", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    own = os.open(tmp_path / "own", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def work():
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        if os.geteuid() == 0:
            os.setuid(54321)
        keeper = LogKeeper(access, LogFiles(), Log(own))
        keeper.rings.give(0)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
        keeper.start()
        assert keeper.pid == 0
        assert writer(keeper.rings.fd, 0, keeper.rings.wake)(b"line\n", monotonic())
        keeper.exited(Reaped(1, 0))  # somebody else's end
        due = keeper.next_deadline()
        assert due is not None
        assert 0 < due - monotonic() <= 1
        keeper.expire()
        assert keeper.pid == 0
        assert keeper.next_deadline() == due  # not before its time
        while monotonic() < due:
            sleep(0.05)
        keeper.expire()
        assert keeper.pid == 0
        assert keeper.next_deadline() > monotonic() + 1  # longer, each time
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
        while monotonic() < keeper.next_deadline():
            sleep(0.05)
        keeper.expire()
        assert keeper.pid
        assert keeper.next_deadline() is None
        keeper.close()

    with forked(work) as pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "access").read_text() == "line\n"
    told = (tmp_path / "own").read_text()
    assert told.count("the access log's writer could not be started: Resource temporarily unavailable") == 2
    assert "trying again in 1 s" in told
    os.close(access)
    os.close(own)


def test_a_python_without_pidfds_waits_for_the_last_lines_too(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    test_closing_without_a_log_writer_is_no_error(tmp_path, 1)


@pytest.mark.parametrize("lines", [0, 1])
def test_closing_without_a_log_writer_is_no_error(tmp_path, lines):
    access = os.open(tmp_path / "access", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    keeper = LogKeeper(access, LogFiles(), Log(2))
    keeper.rings.give(0)
    if lines:
        keeper.start()
        writer(keeper.rings.fd, 0, keeper.rings.wake)(b"line\n", monotonic())
    keeper.close()
    assert (tmp_path / "access").read_text() == "line\n" * lines
    os.close(access)


@pytest.mark.parametrize(("left", "least", "most"), [(None, 2.5, 60), (60, 2.5, 60), (-60, 0.25, 2.4)])
def test_a_reader_that_has_stopped_is_waited_for_no_longer_than_the_stop_may_take(
    monkeypatch, left, least, most
):
    monkeypatch.setattr(keeper_module, "_LAST_WAIT", 2.5)
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while os.write(write, bytes(4096)):
            pass
    keeper = LogKeeper(write, LogFiles(), Log(2))
    keeper.rings.give(0)
    assert writer(keeper.rings.fd, 0, keeper.rings.wake)(b"line\n", monotonic())
    keeper.start()
    keeper.deadline = None if left is None else monotonic() + left
    began = monotonic()
    keeper.close()
    assert least <= monotonic() - began < most
    os.close(read)
    os.close(write)
