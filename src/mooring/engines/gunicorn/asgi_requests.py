"""The requests in flight of gunicorn's own ASGI worker, as the watch over stalled clients needs them.

Everything is read off gunicorn's protocol objects once a second; requests do nothing for it. See
engines/common/watch.py.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from mooring.engines.common.connections import Peer, sent_ago
from mooring.engines.common.linger import linger
from mooring.engines.common.refusal import TIME
from mooring.engines.common.watch import Busy, Watch
from mooring.engines.gunicorn.loop_upload import LoopUpload

_ROUNDING = 0.02  # seconds: the kernel's clock has coarser steps


class Upload(LoopUpload):
    """A request's body: gunicorn's receiver of it."""

    def __init__(self, protocol: Any, client: Peer | None, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(protocol, client, loop)
        self.receiver, self._began = protocol._body_receiver, loop.time()

    @property
    def waiting(self) -> bool:
        """Whether the application waits for a part, and not for the client's end."""
        receiver = self.receiver
        parsed = not self._protocol.mooring_rest  # all that came: asgi_turns.py
        return receiver._waiter is not None and not receiver._body_finished and parsed

    def _refuse(self) -> None:
        transport, receiver = self._protocol.transport, self.receiver
        sock = transport.get_extra_info("socket")
        is_unix = sock is None or sock.family == socket.AF_UNIX  # the kernel does not tell when it sent
        begun = is_unix or sent_ago(sock.fileno()) < self._loop.time() - self._began - _ROUNDING
        if not begun and not transport.is_closing():
            transport.write(TIME.raw)
        receiver._body_wait_expired = True
        receiver._wake_waiter()
        linger(self._protocol, transport)


class Requests:
    """Those in flight in one worker: of these `connections`."""

    def __init__(self, connections: WeakSet[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._connections, self._loop = connections, loop
        self._uploads = WeakKeyDictionary[Any, Upload]()
        self.watch: Watch | None = None

    def busy(self) -> Busy:
        """What the watch asks for, in its thread."""
        clients, uploads, heads = set[Peer | None](), [], set[Peer | None]()
        for reference in list(self._connections.data):  # type: ignore[attr-defined]
            protocol = reference()
            transport = protocol and protocol.transport
            if not transport or protocol._closed:
                continue
            name = transport.get_extra_info("peername")
            client = (name[0].partition("%")[0], name[1]) if isinstance(name, tuple) else _unix(transport)
            waits = protocol._awaiting_request
            answered = None if self.watch is None else self.watch.answered
            if answered is not None and (protocol.req_count > 1 or not waits):
                answered.add(client)
            if waits:
                if protocol.req_count <= 1 or getattr(protocol._callback_parser, "_buffer", None):
                    heads.add(client)
                continue
            clients.add(client)
            receiver = protocol._body_receiver
            if receiver is not None and not receiver._complete:
                known = self._uploads.get(protocol)
                if known is None or known.receiver is not receiver:
                    known = self._uploads[protocol] = Upload(protocol, client, self._loop)
                uploads.append(known)
        return Busy(clients, uploads, heads)


def _unix(transport: Any) -> Peer | None:
    """The name of a unix socket's connection: see engines/common/connections.py."""
    sock = transport.get_extra_info("socket")
    return None if sock is None or sock.fileno() < 0 else ("", sock.fileno())
