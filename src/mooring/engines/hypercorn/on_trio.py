"""hypercorn's trio worker: start and drain. Not for its configuration."""

from __future__ import annotations

import functools
import logging
import socket
from typing import Any

import trio
from hypercorn.trio import run as hypercorn_run

from mooring.engines.common.gate import LOOK
from mooring.engines.hypercorn import connections
from mooring.engines.hypercorn.config import HypercornJob
from mooring.engines.hypercorn.gate import HypercornGate
from mooring.engines.hypercorn.limits import LOOK as LOOK_AT_CLIENTS
from mooring.engines.hypercorn.limits import STEPS, Step, Watch
from mooring.system.doors import Doors

_LOG = logging.getLogger("hypercorn.error")


def abandoned(sync_spawn: Any) -> Any:
    """`sync_spawn`, which runs a thread, changed so that a cancelled request does not wait for its thread."""
    return functools.partial(sync_spawn, abandon_on_cancel=True)


class _Trio:
    """Stands for the module trio in hypercorn's worker_serve; its accept loop can be cancelled alone."""

    def __init__(self) -> None:
        self.accepting = trio.CancelScope()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    async def serve_listeners(self, handler: Any, listeners: Any, **options: Any) -> None:
        self._handler, self.listeners, self.nursery = handler, listeners, options["handler_nursery"]
        with self.accepting:
            await trio.serve_listeners(self.handler, listeners, **options)

    async def handler(self, stream: Any) -> None:
        """As hypercorn's, but the failure of one connection does not end the worker."""
        await _contained(functools.partial(self._handler, stream))

    def adopt(self, doors: Doors) -> None:
        """Serve the connections that were queued when the doors closed."""
        for each in doors.queued():
            stream: Any = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=each.fd)))
            listener = self.listeners[each.listener]
            if isinstance(listener, trio.SSLListener):
                stream = trio.SSLStream(
                    stream, listener._ssl_context, server_side=True, https_compatible=True
                )
            self.nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: Any) -> None:
        try:
            await self.handler(stream)
        finally:
            await trio.aclose_forcefully(stream)


async def serve(job: HypercornJob) -> None:
    """Serve until drained, within the grace period. Raises what hypercorn raises, in exception groups."""
    stop = job.stop
    if job.threads is not None:
        trio.to_thread.current_default_thread_limiter().total_tokens = job.threads
    vars(hypercorn_run)["trio"] = caught = _Trio()
    connections.install(hypercorn_run, job.limits, trio.BusyResourceError)
    # trio logs ten tracebacks a second while descriptors have run out; worker/descriptors.py logs it once
    logging.getLogger("trio.serve_listeners").setLevel(logging.CRITICAL)
    stopping, started = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    stop.on_request(lambda: token.run_sync_soon(stopping.set))

    async with trio.open_nursery() as nursery:

        async def until_stopped() -> None:
            started.set()
            job.ready()
            await stopping.wait()
            job.serving.drain.begin()
            gate = HypercornGate(job)
            caught.accepting.cancel()
            caught.adopt(job.serving.doors)
            await trio.sleep(LOOK)
            while (actions := gate.look()) is not None:
                for action in actions:
                    nursery.start_soon(_contained, action)
                await trio.sleep(LOOK)
            nursery.start_soon(_cut, job.config.graceful_timeout)

        async def limit() -> None:
            await stopping.wait()
            nursery.cancel_scope.deadline = trio.current_time() + (
                stop.remaining() if started.is_set() else 0
            )

        async def watch() -> None:
            looking = Watch(job.limits, connections.connections)
            while True:
                await trio.sleep(LOOK_AT_CLIENTS)
                for number, step in enumerate(looking.look(), 1):
                    nursery.start_soon(_contained, step)
                    if number % STEPS == 0:
                        await trio.sleep(0)

        nursery.start_soon(limit)
        nursery.start_soon(watch)
        await hypercorn_run.worker_serve(
            job.app, job.config, sockets=job.sockets, shutdown_trigger=until_stopped
        )
        nursery.cancel_scope.cancel()


async def _cut(seconds: float) -> None:
    """End what hypercorn's cancellation then does not: a send to a client that takes nothing is shielded."""
    await trio.sleep(seconds + LOOK)
    for each in tuple(connections.connections):
        each.cut()


async def _contained(step: Step) -> None:
    """Run a step for a connection. Its failure is its own; that it has ended meanwhile is none."""
    try:
        await step()
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
        return
    except Exception as error:
        _LOG.error("a connection has failed", exc_info=error)
