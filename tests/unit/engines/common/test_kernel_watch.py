"""What the kernel's numbers mean to the watch, with connections and a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mooring.engines.common.connections import Numbers
from mooring.engines.common.watch import Busy, Watch
from mooring.engines.granian import options
from mooring.engines.granian.wsgi import busy

CLIENT = ("192.0.2.1", 4000)


class Looks(Watch):
    """A watch of one connection, once a second; `ended` has the reasons why it would have been ended."""

    def __init__(self, told=lambda: Busy(()), *, blocked=False, unix=False, named=False):
        limits = {"head_timeout": 5.0, "body_timeout": 5.0, "send_timeout": 5.0, "keep_alive": 5.0}
        serving: Any = SimpleNamespace(
            plan=SimpleNamespace(
                settings=SimpleNamespace(**limits, websocket_max_size=1), max_connections=9, tls=False
            ),
            refused=lambda *_: None,
            full=lambda _full: None,
            doors=SimpleNamespace(names=[]),
        )
        loop = (lambda wake: wake() if not self.blocked else None) if blocked else None
        super().__init__(serving, told, loop, named=named)
        self.blocked, self.ended = blocked, []
        peer = ("", 7) if unix else CLIENT
        ago = -1.0 if unix else 0.1
        self.one = Numbers(7, peer, True, False, ago, ago, 100, 100, 1)
        self._connections = SimpleNamespace(numbers=lambda _known: [self.one])

    def passes(self, sent=0, received=0, seconds=1.0):
        self.one = self.one._replace(acked=self.one.acked + sent, received=self.one.received + received)
        self.look(seconds)

    def _end(self, each, reason="", answer=b"", *, reset=False):
        self.ended.append(reason)


def test_a_download_over_http2_whose_client_opens_windows_is_no_flood():
    watch = Looks()
    watch.multiplexed.add(CLIENT)
    for _ in range(1000):
        watch.passes(sent=2**24, received=2**16)
    assert not watch.ended


def test_pings_are_a_flood_though_they_are_answered():
    watch = Looks()
    watch.multiplexed.add(CLIENT)
    for _ in range(10):
        watch.passes(sent=2**21, received=2**21)
    assert "http2" in watch.ended


def test_a_ping_now_and_then_is_no_flood_in_weeks():
    excessive = []
    reader = SimpleNamespace(client=CLIENT, messages=0, excessive=lambda: excessive.append(1))
    websocket, http2 = Looks(lambda: Busy([CLIENT], readers=[reader])), Looks()
    http2.multiplexed.add(CLIENT)
    for _ in range(3000):
        websocket.passes(received=10_000, seconds=100.0)
        http2.passes(received=10_000, seconds=100.0)
    assert not http2.ended + websocket.ended + excessive
    for _ in range(3):
        websocket.passes(received=2**20)
    assert excessive


def test_the_windows_of_what_waits_for_a_thread_are_no_flood():
    watch = Looks()
    watch.multiplexed.add(CLIENT)
    watch.passes()
    watch.passes(received=options._STREAMS * (options._WINDOW + 2**10))
    assert not watch.ended


@pytest.mark.parametrize("named", [False, True])
def test_time_in_which_the_loop_is_blocked_does_not_count_over_a_unix_socket(named):
    in_flight = [object()]
    watch = Looks(
        lambda: Busy((), heads=[("", 7)], unnamed=[] if watch.blocked or named else in_flight),
        blocked=True, unix=True, named=named,
    )  # fmt: skip
    for _ in range(60):
        watch.passes()
    assert not watch.ended
    watch.blocked = False
    for _ in range(3):
        watch.passes()
    assert not watch.ended
    in_flight.clear()
    for _ in range(20):
        watch.passes()
    assert "head_timeout" in watch.ended


def test_a_request_over_a_unix_socket_is_as_old_as_its_wait_for_a_thread():
    scope = {"client": ("", "0"), "http_version": "1.1"}
    watcher = SimpleNamespace(proto=object(), scope=scope)
    rules: Any = SimpleNamespace(
        parking=SimpleNamespace(parked={}, look=lambda: None), waiting=[watcher], sendings=set[Any]()
    )
    running: set[Any] = set()
    watch = Looks(lambda: busy(running, rules), unix=True)
    for _ in range(60):
        watch.passes()
    rules.waiting.clear()
    running.add(_Exchange(watcher.proto, scope))
    for _ in range(60):
        watch.passes()
    assert not watch.ended
    running.clear()
    watch.passes()
    watch.passes()
    assert watch.ended


class _Exchange:
    body = None

    def __init__(self, proto, scope):
        self.proto, self.scope = proto, scope
