"""The supervisor's look at heartbeats: what it makes of a row, and that it comes before anything else."""

from __future__ import annotations

import signal
import time
from collections import deque
from types import SimpleNamespace

from mooring.scoreboard.row import BEAT, MOVES, PLACES, REQUEST_BASE, TAKEN, Row
from mooring.supervisor import lifecycle
from mooring.supervisor.hangs import HangWatch, _busy
from mooring.supervisor.history import ended_by


def begin(row: Row, place: int, began: float) -> None:
    row.cells[PLACES[place]] = began
    row.cells[PLACES[place] + 1] = float(REQUEST_BASE["GET"])


def test_a_pool_is_busy_with_its_oldest_requests_while_newer_ones_are_refused() -> None:
    row = Row()
    assert _busy(row, 2) is None
    begin(row, 0, 7.0)
    assert _busy(row, 2) is None
    begin(row, 1, 5.0)
    assert _busy(row, 2) == (5.0, 7.0)
    begin(row, 2, 9.0)  # about to be refused, by a thread that the limit has besides
    assert _busy(row, 2) == (5.0, 7.0)
    row.cells[PLACES[1]] = 0.0  # one of the two has ended
    assert _busy(row, 2) == (7.0, 9.0)


def test_who_has_moved_is_heard_before_what_else_has_happened() -> None:
    """In the step of any other event deadlines pass: on a busy machine, late, that had all workers killed."""
    fleet = lifecycle.new_fleet(lifecycle.Policy(heartbeat_timeout=0.2))
    for event in (lifecycle.Tick(), lifecycle.Ready(0)):
        fleet, _ = lifecycle.step(fleet, event, time.monotonic())
    events: deque[lifecycle.Event] = deque()
    workers = SimpleNamespace(
        scoreboard=SimpleNamespace(rows={}), handles={}
    )  # without a row it counts as moving
    shell = SimpleNamespace(fleet=fleet, workers=workers, post_first=events.appendleft, post=events.append)
    watch = HangWatch(shell)
    due = watch.next_deadline()
    assert due is not None
    time.sleep(max(0.0, due - time.monotonic()))
    exited = lifecycle.Exited(7, ended_by(-signal.SIGKILL))
    events.append(exited)
    watch.expire()
    assert events == deque([lifecycle.Beats((0,)), exited])


class _Watched:
    """One WSGI worker with two threads, and what the lifecycle is told of it."""

    def __init__(self) -> None:
        fleet = lifecycle.new_fleet(lifecycle.Policy(heartbeat_timeout=4))
        for event in (lifecycle.Tick(), lifecycle.Ready(0)):
            fleet, _ = lifecycle.step(fleet, event, time.monotonic())
        self.row = Row()
        report = SimpleNamespace(has_arbiter=False, interface="wsgi")
        handle = SimpleNamespace(plan=SimpleNamespace(threads=2), report=report)
        workers = SimpleNamespace(scoreboard=SimpleNamespace(rows={0: (self.row,)}), handles={0: handle})
        self._worker = next(iter(fleet.workers.values()))
        self._watch, self._now = HangWatch(SimpleNamespace(fleet=fleet, workers=workers)), 100.0

    def moved(self) -> bool:
        self._now += 1.0
        self.row.cells[BEAT] = self._now
        return self._watch._moved(self._worker, self._now)

    @property
    def silent(self) -> float:
        return self._watch.silent(0, self._now)


def test_a_busy_pool_moves_while_a_part_of_a_body_passes() -> None:
    watched = _Watched()
    begin(watched.row, 0, 5.0)
    assert [watched.moved(), watched.moved()] == [True, True]  # a thread is free
    begin(watched.row, 1, 7.0)
    assert [watched.moved(), watched.moved(), watched.moved()] == [True, False, False]
    assert watched.silent == 2.0
    for cell in (MOVES, TAKEN):
        watched.row.cells[cell] += 1.0
        assert [watched.moved(), watched.moved()] == [True, False]
        assert watched.silent == 1.0
