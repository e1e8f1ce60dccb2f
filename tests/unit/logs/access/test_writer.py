"""The log writer's end, by itself: in a process of its own, with rings, a log and a control pipe."""

import os
import resource
import signal
import time
from contextlib import suppress
from time import monotonic

import pytest
from forks import forked

from mooring.logs.access.writer import Pipes, run
from mooring.logs.log import Log, LogFiles
from mooring.scoreboard.ring import Rings, writer


@pytest.fixture
def parts(tmp_path):
    """Rings, both ends of a control pipe, and the log's descriptor."""
    rings, control = Rings(), os.pipe()
    rings.give(0)
    access = os.open(tmp_path / "access", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    yield rings, control, access
    for fd in (access, *control):
        with suppress(OSError):
            os.close(fd)
    rings.close()


def log_writer(rings, control, access):
    """What the forked process does: it must not hold the control pipe's other end."""

    def work():
        os.close(control[1])
        run(Pipes(rings.fd, rings.wake, control[0], access), LogFiles(), Log(2))

    return forked(work)


def wait_end(pid, patience=10.0):
    began = monotonic()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert monotonic() - began < patience
        time.sleep(0.01)
    return monotonic() - began


def test_an_end_that_was_asked_for_writes_what_is_there_and_is_quick(parts, tmp_path):
    rings, control, _ = parts
    write = writer(rings.fd, 0, rings.wake)
    assert write(b"line\n", monotonic())
    os.write(control[1], b"d")
    with log_writer(*parts) as pid:
        assert wait_end(pid) < 0.25
    assert (tmp_path / "access").read_text() == "line\n"


def test_a_supervisor_that_was_killed_leaves_time_for_its_workers_last_lines(parts, tmp_path):
    """They die after it: the kernel closes its files first."""
    rings, control, _ = parts
    write = writer(rings.fd, 0, rings.wake)
    with log_writer(*parts) as pid:
        assert write(b"first\n", monotonic())
        os.close(control[1])
        time.sleep(0.1)
        assert write(b"last\n", monotonic())
        assert wait_end(pid) < 5
    assert (tmp_path / "access").read_text() == "first\nlast\n"


def test_the_next_one_looks_at_once_at_what_the_last_has_left(parts, tmp_path):
    rings, _, _ = parts
    assert writer(rings.fd, 0, rings.wake)(b"left\n", monotonic())
    os.eventfd_read(rings.wake)  # the last one was awake when it was killed
    with log_writer(*parts):
        began = monotonic()
        while (tmp_path / "access").read_text() != "left\n":
            assert monotonic() - began < 0.6
            time.sleep(0.01)


def test_a_line_that_came_late_after_its_wake_up_is_found_all_the_same(parts, tmp_path):
    """A worker can lose the processor between the two."""
    rings, _, _ = parts
    path = tmp_path / "access"
    with log_writer(*parts):
        write = writer(rings.fd, 0, rings.wake)
        assert write(b"first\n", 0.0)
        time.sleep(0.4)  # it has stopped looking
        assert write(b"late\n", 0.0)  # within DELAY by the worker's clock: nobody is woken
        began = monotonic()
        while path.read_text() != "first\nlate\n":
            assert monotonic() - began < 5
            time.sleep(0.01)


def test_a_full_disk_counts_only_the_lines_that_are_not_there_whole(parts, tmp_path):
    rings, control, access = parts
    line = b"0123456\n"

    def work():
        os.close(control[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (83, 83))  # the disk is full within the eleventh line
        return run(Pipes(rings.fd, rings.wake, control[0], access), LogFiles(), Log(2))

    write = writer(rings.fd, 0, rings.wake)
    for _ in range(30):
        assert write(line, monotonic())
    os.write(control[1], b"d")
    with forked(work) as pid:
        wait_end(pid)
    assert (tmp_path / "access").read_bytes() == line * 10 + line[:3]
    assert rings.lost == 20


@pytest.mark.parametrize("meanwhile", [b"", b"another's\n"])
def test_a_line_that_a_full_disk_cut_off_is_whole_in_the_end(parts, tmp_path, meanwhile):
    """Unless somebody else has written after it."""
    rings, control, access = parts
    line, path = b"0123456\n", tmp_path / "access"

    def work():
        os.close(control[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (83, resource.RLIM_INFINITY))
        return run(Pipes(rings.fd, rings.wake, control[0], access), LogFiles(), Log(2))

    def wait(true):
        deadline = monotonic() + 30
        while not true():
            assert monotonic() < deadline
            time.sleep(0.01)

    write = writer(rings.fd, 0, rings.wake)
    for _ in range(30):
        assert write(line, monotonic())
    with forked(work) as pid:
        wait(lambda: rings.lost == 19)
        assert path.read_bytes() == line * 10 + line[:3]
        os.write(access, meanwhile)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert write(b"last\n", monotonic())
        os.write(control[1], b"d")
        wait_end(pid)
    cut = line[:3] + meanwhile if meanwhile else line
    assert path.read_bytes() == line * 10 + cut + b"last\n"
    assert rings.lost == 19 + bool(meanwhile)
