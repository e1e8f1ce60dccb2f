"""uvicorn on mooring's listeners, the default for ASGI.

Only the engine's own part: configuration, start, drain. The instrumentation does the access log,
X-Forwarded-*, root_path and metrics; the supervisor manages the processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
import weakref
from collections.abc import Generator
from socket import socket
from typing import TYPE_CHECKING, Any

from uvicorn import Config, Server

from mooring.engines import Serving
from mooring.engines.common import event_loop, tls
from mooring.engines.common.connections import unread
from mooring.engines.common.gate import LOOK, Idle
from mooring.engines.common.lifespan import Lifespan
from mooring.engines.common.stop import StopRequest, warn_of_cut
from mooring.engines.common.websockets import delays
from mooring.engines.uvicorn import httptools, websockets
from mooring.engines.uvicorn.handshake import Handshakes
from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.engines.uvicorn.watch import Watch
from mooring.engines.uvicorn.websockets import QuietWebSockets, quiet

if TYPE_CHECKING:
    from mooring.plan.plan import Plan

_log = logging.getLogger("uvicorn.error")


def check(plan: Plan) -> None:
    """Raise ConfigurationError for what uvicorn cannot do."""
    event_loop.loop_factory(plan.settings.loop)


def serve(serving: Serving) -> None:
    """Serve until drained. Raises ApplicationError for a failed startup, ConfigurationError for TLS files."""
    check(serving.plan)
    settings = serving.plan.settings
    stop = StopRequest(settings.graceful_timeout, serving.doors.close)
    lifespan = Lifespan(serving.load().call, _log)
    quiet()
    server = _Server(_config(lifespan, serving), serving, stop)
    stop.install(serving, server.on_signal, server)
    event_loop.run(server.serve(list(serving.sockets)), event_loop.loop_factory(settings.loop), stop)
    lifespan.check()


def _config(app: Lifespan, serving: Serving) -> Config:
    settings = serving.plan.settings
    options: dict[str, Any] = {
        "http": httptools.limited(serving),
        "ws": websockets.limited(serving),
        "lifespan": "auto",
        "interface": "asgi3",
        "log_config": None,
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,  # the same on every engine
        "workers": 1,  # None would read WEB_CONCURRENCY
        "backlog": settings.backlog,
        "ws_max_size": settings.websocket_max_size,
        "timeout_keep_alive": settings.keep_alive,
    }
    if settings.tls_certificate is not None:
        context = tls.context(settings, ["http/1.1"])
        options["ssl_context_factory"] = lambda config, default: context
    return Config(app, **options)


class _Server(Server):
    """Uvicorn's server, with start and drain as `Serving` describes them."""

    def __init__(self, config: Config, serving: Serving, stop: StopRequest) -> None:
        super().__init__(config)
        self.serving, self.stop = serving, stop
        self.handshaking: set[Any] = set()  # TLS: connections that uvicorn does not know yet

    def on_signal(self, _number: int, _frame: object) -> None:
        """The handler of SIGTERM. Not uvicorn's `handle_exit`, which libraries replace: see
        engines/common/told.py.
        """
        self.stop.request()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Do nothing: StopRequest handles the signals."""
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Run the lifespan startup, which a stop interrupts; then accept on the listeners."""
        self.stopping = event_loop.event_of(self.stop)
        await self.on_tick(0)  # sets the Date header
        starting = asyncio.ensure_future(self.lifespan.startup())
        waiting = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        self.should_exit = not starting.done() or self.lifespan.should_exit
        if self.should_exit:
            return
        self.config.loaded_app = self.config.app.app  # type: ignore[union-attr]
        protocol_class: Any = self.config.http_protocol_class
        self.protocol: Any = functools.partial(
            protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop, config = asyncio.get_running_loop(), self.config
        given, connections = protocol_class.limits, self.server_state.connections
        if config.ssl is not None:
            self.protocol = Handshakes(self.protocol, config.ssl, connections, given)
            self.handshaking = self.protocol.pending
        self.servers = [
            await loop.create_server(self.protocol, sock=listener, backlog=config.backlog)
            for listener in sockets or ()
        ]
        self.watching = asyncio.ensure_future(Watch(connections, given, self.handshaking).run())
        self.started = True
        self.serving.ready()

    async def main_loop(self) -> None:
        """Wait for the stop; meanwhile keep the Date header right."""
        while not self.stopping.is_set():
            if await self.on_tick(0):
                self.stop.request("the application has set should_exit")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain within the grace period, whatever requests and the lifespan shutdown do."""
        self.serving.drain.begin()
        await event_loop.stop_accepting(self.servers)
        await event_loop.adopt(self.serving.doors, self.protocol)
        connections: Any = self.server_state.connections
        reaper = asyncio.ensure_future(event_loop.reap(lambda: [each.transport for each in connections]))
        await self._gate()
        self.config.timeout_graceful_shutdown = self.stop.remaining_for_requests()  # type: ignore[assignment]
        try:
            async with asyncio.timeout(self.stop.remaining()):
                await super().shutdown(sockets)
        except TimeoutError:
            _log.error("the lifespan shutdown was cut: the grace period is over")
        finally:
            reaper.cancel()
            self.watching.cancel()

    async def _gate(self) -> None:
        """Return when no connection is left, or when requests have no time left."""
        patience, began = self.serving.plan.settings.drain_idle, time.monotonic()
        idle, told = Idle(patience), weakref.WeakSet[QuietWebSockets]()
        while True:
            await asyncio.sleep(LOOK)
            now, connections = time.monotonic(), list(self.server_state.connections)
            if not (connections or (self.handshaking and now < began + patience)):
                return
            if not self.stop.remaining_for_requests():
                warn_of_cut(_log, self.serving)
                return
            self._restart([each for each in connections if isinstance(each, QuietWebSockets)], told)
            marks = [
                (each, each.mark()) for each in connections if isinstance(each, LimitedHttpToolsProtocol)
            ]
            for connection in idle.expired(now, marks):
                if not unread(connection.transport.get_extra_info("socket").fileno()):
                    connection.transport.close()

    def _restart(self, found: list[QuietWebSockets], told: weakref.WeakSet[QuietWebSockets]) -> None:
        """Close the WebSockets that were accepted since the last look; many are spread over time."""
        new, patience = (
            [each for each in found if each.open and each not in told],
            self.serving.plan.settings.drain_idle,
        )
        for each, delay in zip(new, delays(len(new), self.stop.remaining_for_requests()), strict=True):
            told.add(each)
            asyncio.get_running_loop().call_later(delay, each.restart, patience)
