"""A worker's heartbeat: a cell of its row, written by the event loop itself, so that it stops with the loop.

Without an event loop (WSGI), a thread writes it: this stops where no thread gets the interpreter's lock, or
the process is frozen. Whether the thread pool moves, the supervisor sees (supervisor/hangs.py); that clients
still take what a busy pool sends, this thread looks for. Also here: how a hung worker writes its stacks when
it is asked to, by a C handler that needs no lock.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from mooring.scoreboard.row import BEAT, MOVES, STREAMS, TAKEN, Row
from mooring.settings import engines
from mooring.system import forks
from mooring.system.unpatched import native

if TYPE_CHECKING:
    from mooring.engines.common.connections import Connections, Traffic
    from mooring.settings.table import Settings

SIGNAL = signal.SIGRTMIN + 7  # a real-time signal: engines and applications use the classic ones


def timeout(settings: Settings) -> float | None:
    """The longest silence in seconds; None: heartbeats are not watched.

    With live reload there may be breakpoints, and an arbiter watches its workers itself.
    """
    if settings.reload or engines.row(settings.engine).has_arbiter:
        return None
    return settings.timeout or None


def every(longest: float) -> float:
    """Seconds between two beats, for a longest silence in seconds."""
    return min(1.0, longest / 4)


def start(row: Row, seconds: float, interface: str, listeners: Sequence[Any], threads: int) -> None:
    """Beat from now on: from the running event loop of an ASGI worker, else from a thread.

    On WSGI, `threads` is the size of the pool, `listeners` are the addresses of its clients' listeners.
    """
    row.cells[BEAT] = monotonic()
    if interface == "asgi" and (_asyncio(row, seconds) or _trio(row, seconds)):
        return
    look = None
    if interface == "wsgi":
        from mooring.engines.common.connections import Connections  # here: the supervisor imports no engines

        look = _look(row, Connections(listeners), threads)
    native("_thread", "start_new_thread")(_thread, (row, seconds, native("time", "sleep"), look))


def moved(row: Row) -> None:
    """Note that a part of a request's body has come; any thread may call it."""
    row.cells[MOVES] += 1.0  # a lost update is still a change


def _look(row: Row, connections: Connections, threads: int) -> Callable[[], None]:
    """A function that notes whether clients have taken bytes of what a busy pool sends.

    A slow client may take minutes for a part, and the kernel holds megabytes of it: the thread that sends
    it only waits.
    """
    before: Traffic = {}

    def look() -> None:
        nonlocal before
        if not row.cells[STREAMS] or row.in_flight_count() < threads:
            before = {}
            return
        now = connections.traffic()
        if any(now[each].sent != was.sent for each, was in before.items() if each in now):
            row.cells[TAKEN] += 1.0
        before = now

    return look


def answer(stacks: int) -> None:
    """From now on, SIGNAL makes this process write the stacks of all threads to the descriptor `stacks`."""
    faulthandler.register(SIGNAL, file=stacks, all_threads=True, chain=False)
    forks.undo(lambda: faulthandler.unregister(SIGNAL))


def _asyncio(row: Row, seconds: float) -> bool:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        later: Callable[..., object] = asyncio.get_running_loop().call_later
    except RuntimeError:
        return False

    def beat() -> None:
        row.cells[BEAT] = monotonic()
        later(seconds, beat)

    later(seconds, beat)
    return True


def _trio(row: Row, seconds: float) -> bool:
    trio = sys.modules.get("trio")
    if trio is None:
        return False

    async def beat() -> None:
        while True:
            row.cells[BEAT] = monotonic()
            await trio.sleep(seconds)

    try:
        trio.lowlevel.spawn_system_task(beat, name="mooring's heartbeat")
    except RuntimeError:
        return False
    return True


def _thread(
    row: Row, seconds: float, sleep: Callable[[float], None], look: Callable[[], None] | None
) -> None:
    while True:
        row.cells[BEAT] = monotonic()
        if look is not None:
            look()
        sleep(seconds)
