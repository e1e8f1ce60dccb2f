"""A process that is kept beside the workers: real ones, with the waits of a policy made short."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from mooring.system import process
from mooring.system.child import NEVER, Child, Restarts

LONG = 60.0  # seconds after which a test that waits has failed


def until(state: Callable[[], bool]) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + LONG
    while not state():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def reap(child: Child) -> int:
    """Wait for its process, and tell it of the end. Returns the exit code."""
    pid, status = os.waitpid(child.pid, 0)
    assert not child.ended(pid + 1)  # somebody else's
    assert child.ended(pid)
    assert not child.pid
    return os.waitstatus_to_exitcode(status)


def leave() -> int:
    return 3


class Held:
    """What a process does that ends with code 0 once it is told to; until then it takes no TERM."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.here, self.deaf = os.pipe()

    def run(self) -> int:
        os.close(self.write)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(self.deaf, b"!")
        os.read(self.read, 1)
        return 0

    def start(self, child: Child) -> None:
        child.start(self.run, [self.read, self.write, self.deaf])
        assert os.read(self.here, 1) == b"!"

    def close(self) -> None:
        for fd in (self.read, self.write, self.here, self.deaf):
            os.close(fd)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.close()


def test_it_is_started_again_after_the_waits_of_its_policy() -> None:
    child = Child(Restarts(at_once=1, first=0.02, longest=0.05))
    for wait in (0.0, 0.02, 0.04, 0.05, 0.05):
        child.start(leave)
        assert child.next_deadline() is None
        assert reap(child) == 3
        before = time.monotonic()
        assert child.failed() == wait
        due = child.next_deadline()
        assert due is not None
        assert before + wait <= due <= time.monotonic() + wait
        until(child.is_due)
        assert time.monotonic() >= due
    child.forgive()
    assert (child.failed(), child.failed()) == (0.0, 0.02)


def test_it_is_not_due_before_its_time() -> None:
    child = Child(Restarts(first=LONG, longest=LONG))
    child.start(leave)
    reap(child)
    assert child.failed() == LONG
    assert not child.is_due()


def test_it_is_given_up_after_so_many_ends_in_a_row() -> None:
    child = Child(Restarts(give_up=3))
    waits = []
    for _ in range(3):
        child.start(leave)
        reap(child)
        waits.append(child.failed())
    assert waits == [0.0, 0.0, NEVER]
    assert child.next_deadline() is None
    assert not child.is_due()


@pytest.mark.parametrize(("stable_end", "waits"), [(0, [0.0, 0.0, 0.0, 0.5]), (1, [0.0, 0.0, 0.5, 1.0])])
def test_a_stable_life_starts_the_count_anew(stable_end: int, waits: list[float]) -> None:
    """All lives but the third are shorter than `stable`."""
    child = Child(Restarts(stable=LONG, stable_end=stable_end, at_once=2, first=0.5, longest=4.0))
    found = []
    for life in range(6):
        child.start(leave)
        reap(child)
        if life == 2:
            child._born -= LONG  # instead of waiting for it
        found.append(child.failed())
    assert found[:2] == [0.0, 0.0]
    assert found[2:] == waits


def test_a_refused_start_is_put_off_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(process, "spawn", refuse)
    child = Child(Restarts(first=0.5, longest=0.7))
    open_before = sorted(os.listdir("/proc/self/fd"))
    read, write = os.pipe()
    with pytest.raises(BlockingIOError):
        child.start(leave, ours=read, theirs=write)
    assert sorted(os.listdir("/proc/self/fd")) == open_before
    assert (child.pid, child.channel) == (0, -1)
    assert (child.put_off(), child.put_off(), child.put_off()) == (0.5, 0.7, 0.7)


def test_it_is_heard_until_its_end() -> None:
    child, selector, heard = Child(), selectors.DefaultSelector(), []
    open_before = sorted(os.listdir("/proc/self/fd"))
    read, write = os.pipe()

    def work() -> int:
        os.write(write, b"hello")
        return 0

    child.start(work, ours=read, theirs=write)
    child.listen(selector, lambda: heard.append(os.read(child.channel, 100)))
    while b"" not in heard:  # which is the end: nobody else holds the other end
        for key, _ in selector.select(LONG):
            key.data()
    assert heard == [b"hello", b""]
    assert reap(child) == 0
    child.deafen()
    child.deafen()
    assert not selector.get_map()
    assert sorted(os.listdir("/proc/self/fd")) == open_before
    selector.close()


def test_one_that_does_not_end_is_overdue_and_killed_again_and_again(held: Held) -> None:
    child = Child(kill_again=0.03)
    held.start(child)
    assert not child.ending
    assert child.next_deadline() is None
    stop = time.monotonic() + LONG
    assert child.next_deadline(stop) == stop
    child.terminate(0.02)
    assert child.ending
    assert child.next_deadline(0.0) == 0.0  # everybody's deadline, which is sooner
    assert child.is_overdue(0.0)
    until(child.is_overdue)
    child.kill()
    assert not child.is_overdue()
    until(child.is_overdue)
    assert reap(child) == -signal.SIGKILL
    assert child.ending
    assert not child.is_overdue()


@pytest.mark.parametrize("patience", [0.0, 0.02])
def test_it_is_killed_at_the_stop(held: Held, patience: float) -> None:
    child = Child()
    held.start(child)
    pid = child.pid
    child.stop(patience)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    child.stop()  # a second time, and without a process


def test_at_the_stop_it_may_end_by_itself(held: Held) -> None:
    child = Child()
    held.start(child)
    last, seen = os.pipe()
    other = Child()

    def work() -> int:
        os.read(held.read, 1)
        os.write(seen, b"done")
        return 0

    other.start(work, [held.read], ours=last, theirs=seen)
    os.write(held.write, b"!!")
    channel = os.dup(other.channel)
    other.stop(LONG)
    child.stop(LONG)
    assert os.read(channel, 100) == b"done"
    os.close(channel)


def test_what_is_abandoned_is_known_no_more(held: Held) -> None:
    child = Child()
    held.start(child)
    pid = child.pid
    child.abandon()
    assert not child.ended(pid)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
