"""The uvicorn server in gunicorn's uvicorn worker, with a drain like the one of the engine uvicorn.

The protocol classes may be the user's own, so the drain watches connections from outside
(engines/common/gate.py).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import weakref
from types import FrameType
from typing import Any

from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE

from mooring.engines import Serving
from mooring.engines.common import event_loop, max_body, watch
from mooring.engines.common.gate import Gate
from mooring.engines.common.stop import warn_of_cut
from mooring.engines.common.websockets import delays
from mooring.engines.gunicorn.uvicorn_requests import Requests
from mooring.engines.uvicorn.handshake import Handshakes
from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.engines.uvicorn.limits import Limits
from mooring.engines.uvicorn.watch import Watch

_LOG = logging.getLogger("uvicorn.error")


class GatedServer(Server):
    """Closes a connection only after its last response, or after it was idle for drain_idle seconds."""

    def __init__(self, config: Config, serving: Serving) -> None:
        super().__init__(config)
        self.serving = serving
        self.ordered = False  # to drain
        self.make: Any = self.protocol  # TLS: Handshakes
        self.handshaking: set[Any] = set()
        self.watching: asyncio.Future[None] | None = None
        self.told: weakref.WeakSet[Any] = weakref.WeakSet()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the stop: with the listeners, since the event loop may be blocked."""
        self.serving.doors.close()
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Wait for the stop."""
        await super().main_loop()
        if self.should_exit and not (self.ordered or self._captured_signals):
            _LOG.error(
                "the application has set should_exit: the worker finishes its requests and is replaced"
            )

    def limited(self, application: Any) -> Any:
        """The application, with the limit on bodies that the user's protocol class does not know."""
        return application if self.knows_limits else max_body.limited(application, self.serving)

    @property
    def knows_limits(self) -> bool:
        """Whether the protocol class is mooring's."""
        kind = self.config.http
        return isinstance(kind, type) and issubclass(kind, LimitedHttpToolsProtocol)

    @property
    def limits(self) -> Limits:
        """Those of mooring's protocol; for any other, the time of a handshake: the watch does the rest."""
        kind: Any = self.config.http
        patience = self.serving.plan.settings.head_timeout
        return kind.limits if self.knows_limits else Limits(head_timeout=patience)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a time for TLS handshakes, and a watch over clients that stall."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        loop, config = asyncio.get_running_loop(), self.config
        if config.ssl is not None:
            connections: Any = self.server_state.connections
            self.make = Handshakes(self.protocol, config.ssl, connections, self.limits)
            self.handshaking = self.make.pending
        self.servers = [
            await loop.create_server(self.make, sock=each, backlog=config.backlog) for each in sockets or ()
        ]
        self.watch(loop)
        self.started = True

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch mooring's protocol from inside, any other by the kernel's numbers."""
        connections: Any = self.server_state.connections
        if self.knows_limits:
            looks = Watch(connections, self.limits, self.handshaking)
            self.watching = asyncio.ensure_future(looks.run())
            return
        requests = Requests(connections, loop)
        requests.watch = watch.Watch(self.serving, requests.busy, loop.call_soon_threadsafe, keep_alive=False)
        requests.watch.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain; requests in flight have the configuration's `timeout_graceful_shutdown`, in seconds."""
        state: Any = self.server_state
        loop = asyncio.get_running_loop()
        self.serving.drain.begin()
        await event_loop.stop_accepting(self.servers)
        await event_loop.adopt(self.serving.doors, self.make)
        reaper = asyncio.ensure_future(
            event_loop.reap(lambda: [each.transport for each in state.connections])
        )
        gate, end = Gate(self.serving, lambda: state.tasks), loop.time() + self.seconds
        while loop.time() < end and not gate.passed():
            self.restart(end - loop.time())
            await asyncio.sleep(gate.pause)
        if loop.time() >= end:
            warn_of_cut(_LOG, self.serving)
        self.config.timeout_graceful_shutdown = max(0, end - loop.time())  # type: ignore[assignment]
        await super().shutdown(sockets)
        reaper.cancel()
        if self.watching is not None:
            self.watching.cancel()

    def protocol(self) -> asyncio.Protocol:
        """What uvicorn makes for each connection."""
        kind: Any = self.config.http_protocol_class
        made: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @property
    def seconds(self) -> float:
        """Seconds of the grace period that requests may use."""
        return self.config.timeout_graceful_shutdown or 0.0

    def restart(self, left: float) -> None:
        """Close the WebSockets that were accepted since the last call, with code 1012."""
        loop, patience = asyncio.get_running_loop(), self.serving.plan.settings.drain_idle
        new = [each for each in self.server_state.connections if getattr(each, "open", False)]
        new = [each for each in new if each not in self.told]
        for each, delay in zip(new, delays(len(new), left), strict=True):
            self.told.add(each)
            loop.call_later(delay, each.restart, patience)  # type: ignore[union-attr]
