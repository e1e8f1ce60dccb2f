"""The requests in flight of uvicorn in gunicorn's worker, as the watch over stalled clients needs them.

The protocol classes may be the user's own, so all is read off uvicorn's common attributes, once a second. See
engines/common/watch.py.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from mooring.engines.common.connections import Peer
from mooring.engines.common.linger import linger
from mooring.engines.common.refusal import TIME
from mooring.engines.common.watch import Busy, Watch
from mooring.engines.gunicorn.loop_upload import LoopUpload


class Upload(LoopUpload):
    """A request's body: uvicorn's cycle."""

    def __init__(self, protocol: Any, client: Peer | None, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(protocol, client, loop)
        self.cycle = protocol.cycle

    @property
    def waiting(self) -> bool:
        """Whether the application waits for a part of the body."""
        return bool(self.cycle.more_body and self.cycle.message_event._waiters)

    def _refuse(self) -> None:
        transport, cycle = self._protocol.transport, self.cycle
        if not cycle.response_started and not transport.is_closing():
            transport.write(TIME.raw)
        cycle.disconnected = True
        cycle.message_event.set()
        linger(self._protocol, transport)


class Requests:
    """Those in flight in one worker; `connections` are uvicorn's, WebSockets too."""

    def __init__(self, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._connections, self._loop = connections, loop
        self._uploads = WeakKeyDictionary[Any, Upload]()
        self.watch: Watch | None = None

    def busy(self) -> Busy:
        """What the watch asks for, in its thread."""
        clients, uploads = set[Peer | None](), []
        answered = None if self.watch is None else self.watch.answered
        for protocol in list(self._connections):
            name = protocol.transport.get_extra_info("peername")
            client = (name[0].partition("%")[0], name[1]) if isinstance(name, tuple) else None
            cycle: Any = getattr(protocol, "cycle", False)  # a WebSocket has none, and is always in flight
            if answered is not None and cycle is not None:
                answered.add(client)
            if cycle is None or (cycle and cycle.response_complete):
                continue
            clients.add(client)
            if cycle and cycle.more_body:
                known = self._uploads.get(protocol)
                if known is None or known.cycle is not cycle:
                    known = self._uploads[protocol] = Upload(protocol, client, self._loop)
                uploads.append(known)
        return Busy(clients, uploads)
