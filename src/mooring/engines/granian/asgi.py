"""ASGI on granian: one event loop in this thread; granian's threads hand the requests over to it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from granian._futures import _new_cbscheduler

from mooring.application.model import Message
from mooring.engines import Serving
from mooring.engines.common import event_loop
from mooring.engines.common.gate import Gate
from mooring.engines.common.lifespan import Lifespan
from mooring.engines.common.stop import StopRequest, warn_of_cut
from mooring.engines.common.watch import Watch
from mooring.engines.granian.pool import LOG, Pool
from mooring.engines.granian.scope import handler
from mooring.engines.granian.websocket import Live


def serve(serving: Serving) -> None:
    """Serve an ASGI application until drained. Raises ApplicationError if its lifespan startup fails."""
    settings = serving.plan.settings
    pool = Pool(serving, 1, websockets=True)
    stop = StopRequest(settings.graceful_timeout, pool.leave)
    stop.install(serving)
    lifespan = Lifespan(serving.load().call, LOG)
    event_loop.run(_serve(serving, lifespan, stop, pool), event_loop.loop_factory(settings.loop), stop)
    lifespan.check()


async def _serve(serving: Serving, application: Lifespan, stop: StopRequest, pool: Pool) -> None:
    stopping = event_loop.event_of(stop)
    lifespan = _Engine(application)
    if not await lifespan.startup(stopping):
        return
    loop = asyncio.get_running_loop()
    live = Live(serving, loop)
    watch = Watch(serving, live.busy, loop.call_soon_threadsafe, named=False)
    live.multiplexed, live.answered = watch.multiplexed, watch.answered
    stopped = asyncio.Semaphore(0)
    new_scheduler: Any = _new_cbscheduler
    schedulers = []
    for sock in serving.sockets:
        unix = str(sock.getsockname()) if sock.family == socket.AF_UNIX else None
        handle = handler(application, live, lifespan.state, unix)
        schedulers.append(new_scheduler(loop, handle, impl_asyncio=True))

    def one_stopped() -> None:  # called in one of granian's threads
        loop.call_soon_threadsafe(stopped.release)

    pool.start(schedulers, loop, one_stopped)
    watch.start()
    if not stop.requested:
        serving.ready()
    await stopping.wait()
    serving.drain.begin()
    try:
        async with asyncio.timeout(stop.remaining_for_requests()):
            await _pass_gate(serving, live, stop)
            pool.stop()
            for _ in serving.sockets:
                await stopped.acquire()
            await live.idle()
    except TimeoutError:
        pool.stop()
        warn_of_cut(LOG, serving, live.active)
        await _cancel(lifespan.task)
    await lifespan.shutdown(stop)


async def _pass_gate(serving: Serving, live: Live, stop: StopRequest) -> None:
    """Wait until no client would lose a request: granian can only end all connections at once."""
    gate = live.gate = Gate(serving, lambda: live.active)
    closing = asyncio.ensure_future(live.close_websockets(gate.connections, stop.remaining_for_requests()))
    try:
        while not gate.passed():
            await asyncio.sleep(gate.pause)
    finally:
        closing.cancel()


async def _cancel(lifespan: asyncio.Task[None]) -> None:
    """Cancel the requests that are still in flight: all tasks but this one and the lifespan's."""
    others = asyncio.all_tasks() - {asyncio.current_task(), lifespan}
    for task in others:
        if task is not None:
            task.cancel()
    if others:
        await asyncio.wait(others, timeout=0.1)


class _Engine:
    """The engine's side of the lifespan protocol. Not granian's own, which exits the process."""

    def __init__(self, application: Lifespan) -> None:
        self.state: dict[str, Any] = {}
        self._answer = asyncio.Event()
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._application = application
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self.task = asyncio.ensure_future(application(scope, self._events.get, self._send))

    async def startup(self, stopping: asyncio.Event) -> bool:
        """True once the application has started; False if that failed, or a stop came first."""
        self._events.put_nowait({"type": "lifespan.startup"})
        done = [asyncio.ensure_future(each.wait()) for each in (self._answer, stopping)]
        await asyncio.wait({*done, self.task}, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.cancel()
        if self.task.done():
            self.task.result()  # raises a BaseException, which Lifespan does not handle
        return self._answer.is_set() and self._application.failure is None

    async def shutdown(self, stop: StopRequest) -> None:
        """Run the application's shutdown within the grace period."""
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait({self.task}, timeout=stop.remaining())
        if not self.task.done():
            LOG.error("the lifespan shutdown was cut: the grace period is over")

    async def _send(self, message: Message) -> None:
        self._answer.set()
