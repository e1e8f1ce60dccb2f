"""What the loop does with its parts: a supervisor whose workers cannot be started, and parts that listen."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from forks import fork

from mooring.logs.log import Log
from mooring.supervisor import lifecycle
from mooring.supervisor.lifecycle import Notice
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.part import Part
from mooring.system.process import Reaped
from mooring.system.signals import SignalQueue


class NoWorkers:
    """The system refuses each."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.plan = SimpleNamespace(settings=SimpleNamespace(reload=False), revision=1)

    def __contains__(self, pid: int) -> bool:
        return False

    def spawn(self, *_: Any) -> None:
        raise BlockingIOError

    def leave_for_good(self) -> None:
        pass

    def forget(self, pid: int) -> None:
        return None


class Idle(Part):
    """Has nothing to do, so defines nothing."""


class Listening(Part):
    """Writes down what it is told. It holds the end until its child has ended, and wakes up in between."""

    def __init__(self, name: str, calls: list[tuple[str, Any]]) -> None:
        self.name, self.calls = name, calls
        self.child = 0
        self.due: float | None = None
        self.woken: list[float] = []

    def next_deadline(self) -> float | None:
        return self.due

    def expire(self) -> None:
        if self.due is not None and time.monotonic() >= self.due:
            self.woken.append(self.due)
            self.due = None
            self.child = fork(lambda: None)

    def told(self, kind: Notice, data: Mapping[str, Any], /) -> None:
        self.calls.append((self.name, (kind, dict(data))))

    def exited(self, ended: Reaped, /) -> None:
        if ended.pid == self.child:
            self.child = 0
            self.calls.append((self.name, ended))

    def busy(self) -> bool:
        return self.due is not None or bool(self.child)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    queue, null = SignalQueue(), os.open(os.devnull, os.O_WRONLY)
    found = Supervisor(NoWorkers(), Log(null), lifecycle.Policy(), queue)  # type: ignore[arg-type]
    yield found
    found.selector.close()
    queue.close()
    os.close(null)


def test_a_part_with_nothing_to_do_holds_nothing(supervisor: Supervisor) -> None:
    supervisor.add(Idle())
    supervisor.post(lifecycle.StopNow())
    assert supervisor.run() == 0


def test_each_part_is_told_every_notice_in_the_order_of_adding(supervisor: Supervisor) -> None:
    calls: list[tuple[str, Any]] = []
    for part in (Listening("first", calls), Idle(), Listening("second", calls)):
        supervisor.add(part)
    supervisor.post(lifecycle.StopNow())
    supervisor.run()
    assert [name for name, _ in calls] == ["first", "second"] * (len(calls) // 2)
    assert [call for name, call in calls if name == "first"] == [c for name, c in calls if name == "second"]
    kinds = [kind for name, (kind, _) in calls if name == "first"]
    assert kinds[0] is Notice.STOPPING
    assert kinds[-1] is Notice.STOPPED


def test_a_part_is_woken_in_time_and_told_of_its_process_and_holds_the_end_until_then(
    supervisor: Supervisor,
) -> None:
    calls: list[tuple[str, Any]] = []
    part, other = Listening("one", calls), Listening("other", calls)
    supervisor.add(other)
    supervisor.add(part)
    part.due = due = time.monotonic() + 0.05
    supervisor.post(lifecycle.StopNow())
    assert supervisor.run() == 0
    assert part.woken == [due]
    assert time.monotonic() >= due
    name, ended = calls[-1]  # after the last notice
    assert (name, ended.code) == ("one", 0)
    assert other.woken == []
    assert not part.busy()
