"""hypercorn's asyncio and uvloop workers: start and drain. Not for their configuration."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from hypercorn.asyncio import run as hypercorn_run
from hypercorn.events import Closed

from mooring.engines.common import event_loop
from mooring.engines.common.gate import LOOK
from mooring.engines.hypercorn import connections
from mooring.engines.hypercorn.config import HypercornJob
from mooring.engines.hypercorn.gate import HypercornGate
from mooring.engines.hypercorn.handshake import Handshake
from mooring.engines.hypercorn.limits import LOOK as LOOK_AT_CLIENTS
from mooring.engines.hypercorn.limits import STEPS, Watch


class _Asyncio:
    """Stands for the module asyncio in hypercorn's worker_serve; it records servers and connections."""

    def __init__(self) -> None:
        self.servers: list[asyncio.Server] = []
        self.transports: set[asyncio.WriteTransport] = set()
        self.protocol: Callable[[], asyncio.BaseProtocol] | None = None  # for each connection

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def start_server(
        self,
        callback: Callable[..., Any],
        *,
        ssl: Any = None,
        ssl_handshake_timeout: Any = None,
        **options: Any,
    ) -> _Listener:
        async def caught(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            transport = writer.transport
            event_loop.close_once(transport)
            self.transports.add(transport)
            try:
                await callback(reader, writer)
            except asyncio.CancelledError:  # at the end of a drain; asyncio before 3.12 fails at such a task
                transport.abort()
            except TimeoutError:  # TLS: the client did not confirm the end
                transport.abort()
            finally:
                self.transports.discard(transport)

        def made() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), caught)

        self.protocol = made if ssl is None else lambda: Handshake(made, ssl, ssl_handshake_timeout)
        server = await asyncio.get_running_loop().create_server(self.protocol, **options)
        self.servers.append(server)
        return _Listener(server)


class _Listener:
    """A server whose wait_closed() returns at once.

    Since Python 3.12 it waits for connections, and hypercorn's worker_serve calls it without a limit.
    """

    def __init__(self, server: asyncio.Server) -> None:
        self.close = server.close

    async def wait_closed(self) -> None:
        return


async def serve(job: HypercornJob) -> None:
    """Serve until drained, within the grace period. Raises what hypercorn raises."""
    stop = job.stop
    caught = _Asyncio()
    vars(hypercorn_run)["asyncio"] = caught
    connections.install(hypercorn_run, job.limits)
    asyncio.get_running_loop().set_exception_handler(_exception_handler)
    stopping = event_loop.event_of(stop)
    started = asyncio.Event()
    closing: list[asyncio.Future[Any]] = []

    async def until_stopped() -> None:
        started.set()
        job.ready()
        await stopping.wait()
        job.serving.drain.begin()
        gate = HypercornGate(job)
        await event_loop.stop_accepting(caught.servers)
        if caught.protocol is not None:
            await event_loop.adopt(job.serving.doors, caught.protocol)
        await asyncio.sleep(LOOK)
        while (actions := gate.look()) is not None:
            closing.extend(asyncio.ensure_future(action()) for action in actions)
            await asyncio.sleep(LOOK)
        closing.append(asyncio.ensure_future(_cut(job.config.graceful_timeout)))

    watching = asyncio.ensure_future(_watch(Watch(job.limits, connections.connections)))
    worker = asyncio.ensure_future(
        hypercorn_run.worker_serve(job.app, job.config, sockets=job.sockets, shutdown_trigger=until_stopped)
    )
    waiting = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({worker, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not worker.done():
        if not started.is_set():
            worker.cancel()
        reaper = asyncio.ensure_future(event_loop.reap(lambda: caught.transports))
        await asyncio.wait({worker}, timeout=stop.remaining())
        reaper.cancel()
    watching.cancel()
    if worker.done() and not worker.cancelled():
        worker.result()


async def _cut(seconds: float) -> None:
    """End what hypercorn's cancellation then does not: it waits for clients that take nothing."""
    await asyncio.sleep(seconds + LOOK)
    left = tuple(connections.connections)
    for each in left:
        each.cut()
    await asyncio.gather(*(each.protocol.handle(Closed()) for each in left if hasattr(each, "protocol")))


async def _watch(watch: Watch) -> None:
    steps: set[asyncio.Future[Any]] = set()  # a loop has only weak references to its tasks
    while True:
        await asyncio.sleep(LOOK_AT_CLIENTS)
        for number, step in enumerate(watch.look(), 1):
            task = asyncio.ensure_future(step())
            steps.add(task)
            task.add_done_callback(steps.discard)
            if number % STEPS == 0:
                await asyncio.sleep(0)


def _exception_handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), ssl.SSLError):  # a failed TLS handshake: the client's error
        event_loop.handle(loop, context)
