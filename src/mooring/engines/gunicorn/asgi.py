# mypy: disable-error-code=no-untyped-call
"""gunicorn's own ASGI worker with a drain: by itself it waits for idle connections as long as for requests,
and does not close WebSockets.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from mooring.engines.common import event_loop
from mooring.engines.common.gate import Gate, Idle
from mooring.engines.common.max_body import limited
from mooring.engines.common.stop import warn_of_cut
from mooring.engines.common.watch import Watch
from mooring.engines.common.websockets import delays
from mooring.engines.gunicorn import asgi_turns, asgi_websocket
from mooring.engines.gunicorn.asgi_requests import Requests
from mooring.engines.gunicorn.asgi_turns import Turns
from mooring.engines.gunicorn.worker import ORDER, MooringWorker


class AsgiWorker(MooringWorker):
    """Gunicorn's own ASGI worker. By itself it notices a stop only after sleeping for a second."""

    mooring_main: asyncio.Task[Any] | None = None
    mooring_drain: asyncio.Task[None] | None = None
    loop: asyncio.AbstractEventLoop

    def init_signals(self) -> None:
        """Install the handlers; uvloop would lose a stop that comes before the loop runs."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, ORDER})
        super().init_signals()
        self.loop.remove_signal_handler(signal.SIGTERM)  # gunicorn's: the application's would look the same
        self.mooring_told.install(self.mooring_drain_now)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def mooring_drain_now(self, *_: object) -> None:
        """Handle the order, or TERM. Not by `add_signal_handler`: that would not be bound to this object, and
        would wait for a loop that may be blocked.
        """
        self.mooring_job.serving.doors.close()
        if self.mooring_main is None:
            self.alive = False  # it has not begun to serve
        else:
            self.loop.call_soon_threadsafe(self.handle_exit_signal)

    def run(self) -> None:
        """Serve until drained."""
        event_loop.lasting(self.loop, self.mooring_asked, self.mooring_leave)
        super().run()

    async def _serve(self) -> None:
        if not self.alive:
            return
        gasgi: Any = sys.modules["gunicorn.workers.gasgi"]
        connections = weakref.WeakSet[Any]()
        base: Any = gasgi.ASGIProtocol

        class Protocol(Turns, base):  # type: ignore[misc]
            mooring_serving = self.mooring_job.serving
            mooring_own = base.data_received

            def connection_made(self, transport: Any) -> None:
                connections.add(self)
                event_loop.close_once(transport)
                super().connection_made(transport)

        gasgi.ASGIProtocol = Protocol
        asgi_websocket.install(self.mooring_job.serving)
        asgi_turns.install()
        self.mooring_connections = connections
        worker: Any = self
        worker.asgi = limited(worker.asgi, self.mooring_job.serving)
        requests = Requests(connections, self.loop)
        requests.watch = Watch(
            self.mooring_job.serving, requests.busy, self.loop.call_soon_threadsafe, keep_alive=False
        )
        requests.watch.start()
        self.mooring_main = asyncio.current_task()
        await super()._serve()  # type: ignore[misc]  # gunicorn's class has it

    def handle_exit_signal(self) -> None:
        """Begin the drain. The worker stays `alive`: else it would close each connection after a response."""
        if not self.mooring_announced or self.mooring_main is None:
            super().handle_exit_signal()  # type: ignore[misc]
        elif self.mooring_drain is None:
            self.mooring_job.serving.doors.close()
            self.mooring_job.serving.drain.begin()
            self.mooring_main.cancel()
            self.mooring_drain = asyncio.ensure_future(self.mooring_gate())

    async def mooring_gate(self) -> None:
        """Wait until no client would lose a request; then close the connections that wait for one, as after
        their keep-alive time.
        """
        serving = self.mooring_job.serving
        end = time.monotonic() + self.cfg.graceful_timeout
        gate, silent = Gate(serving, self.mooring_busy), Idle(self.mooring_idle)
        transports = lambda: [each.transport for each in self.mooring_connections if each.transport]  # noqa: E731
        self.mooring_tasks = [asyncio.ensure_future(event_loop.reap(transports)), *self.mooring_closing()]
        while not gate.passed():
            await asyncio.sleep(gate.pause)
            now = time.monotonic()
            found = [each._websocket for each in self.mooring_connections if each._websocket]
            for websocket in silent.expired(now, [(each, "told") for each in found if each._close_sent]):
                websocket._close_event.set()  # else it waits 5 s for the client's close frame
            if now >= end:
                warn_of_cut(self.log.error_log, serving)
                break
        self.alive = False
        for each in self.mooring_connections:
            if each._awaiting_request:
                each._keepalive_timeout()

    def mooring_closing(self) -> Iterator[asyncio.Task[None]]:
        """Close the WebSockets; many are spread over time."""
        websockets = self.mooring_job.websockets
        closers = websockets.closers() if websockets is not None else []
        for delay, close in zip(delays(len(closers), self.cfg.graceful_timeout), closers, strict=True):
            yield asyncio.ensure_future(_after(delay, close))

    def mooring_busy(self) -> bool:
        """Whether any connection has a request in flight."""
        return any(not (each._awaiting_request or each._closed) for each in self.mooring_connections)

    async def _shutdown(self) -> None:
        worker: Any = self
        await event_loop.stop_accepting(worker.servers)
        gasgi: Any = sys.modules["gunicorn.workers.gasgi"]
        await event_loop.adopt(
            self.mooring_job.serving.doors, lambda: gasgi.ASGIProtocol(self), worker._get_ssl_context()
        )
        await super()._shutdown()  # type: ignore[misc]


async def _after(delay: float, close: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(delay)
    await close()
