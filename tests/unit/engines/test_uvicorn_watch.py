"""The limits of time of uvicorn's connections, with a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.engines.uvicorn.limits import Limits
from mooring.engines.uvicorn.watch import Watch


class Transport:
    def is_closing(self):
        return False

    def get_write_buffer_size(self):
        return 0

    def get_extra_info(self, _name):
        return None


def request():
    return SimpleNamespace(response_started=False, response_complete=False)


class Client(LimitedHttpToolsProtocol):
    """A connection of which only what it owes is real."""

    def __init__(self, owes):
        self.clear()
        self.owes, self.expired, self.cycle = owes, [], request()
        self.transport, self.flow = Transport(), SimpleNamespace(read_paused=False)

    def awaits(self):
        return self.owes and (self.owes, (self.cycle, self.taken) if self.owes == "body" else self.cycle)

    def expire(self, what):
        self.expired.append(what)


def watched(
    client: Client, seconds: float, rate: float, watch: Watch | None = None, **limits: float
) -> float | None:
    """Look once a second while `rate` bytes a second come; the second in which it expired."""
    watch = watch or Watch([client], Limits(**limits))
    for second in range(1, int(seconds) + 1):
        client.taken += int(rate * second) - int(rate * (second - 1))
        watch.look(float(second))
        if client.expired:
            return second
    return None


@pytest.mark.parametrize(
    ("rate", "ends"), [(0, 60), (1, 20), (0.02, 20), (200, 20), (250, None), (1e6, None)]
)
def test_a_body_that_stalls_or_drips_ends(rate, ends):
    found = watched(Client("body"), 300, rate)
    assert (found is None) == (ends is None)
    assert ends is None or found <= ends + 2


def test_a_burst_buys_no_hours_for_a_drip():
    assert 60 <= bursts(rate=1) <= 101


def test_a_pause_after_a_fast_start_is_no_drip():
    assert bursts(rate=0, for_seconds=55) is None
    assert bursts(rate=0, for_seconds=65) is not None


def bursts(rate: float, for_seconds: float = 300) -> float | None:
    """What `watched` finds after 10 MB in a second."""
    client = Client("body")
    watch = Watch([client], Limits())
    watch.look(-1.0)
    client.taken = 10_000_000
    watch.look(0.0)
    return watched(client, for_seconds, rate, watch=watch)


def test_a_second_body_is_rated_by_itself():
    client = Client("body")
    watch = Watch([client], Limits())
    for second in range(1, 100):
        if second % 15 == 0:
            client.cycle = request()
        client.taken += 1
        watch.look(float(second))
    assert not client.expired


def test_time_in_which_nothing_is_owed_does_not_count():
    client = Client("body")
    watch = Watch([client], Limits(body_timeout=10))
    for second in range(1, 200):
        client.owes = "body" if second % 8 else None  # the application thinks now and then
        watch.look(float(second))
        client.taken += 300
    assert not client.expired


def test_a_head_that_drips_has_no_more_time_than_one_that_stalls():
    assert watched(Client("head"), 100, 1, head_timeout=20) in (20, 21)


@pytest.mark.parametrize("owes", ["head", "body"])
def test_no_limit(owes):
    assert watched(Client(owes), 1000, 0.1, head_timeout=0, body_timeout=0) is None
