"""The body of a request on an event loop, as the watch sees it: what has come is known from the kernel."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from mooring.engines.common.connections import Peer, passed


class LoopUpload(ABC):
    """See Upload in engines/common/watch.py."""

    multiplexed = False

    def __init__(self, protocol: Any, client: Peer | None, loop: asyncio.AbstractEventLoop) -> None:
        self._protocol, self._loop = protocol, loop
        self.client, self.refused = client, False
        self._before = self._passed()

    def _passed(self) -> int:
        sock = self._protocol.transport.get_extra_info("socket")
        return 0 if sock is None or sock.fileno() < 0 else passed(sock.fileno()).received

    @property
    @abstractmethod
    def waiting(self) -> bool:
        """Whether the application waits for a part, and not for the client's end."""

    @property
    def received(self) -> int:
        """Bytes that have come since the first look."""
        return self._passed() - self._before

    def refuse(self) -> None:
        """End the wait. Called in the watch's thread."""
        self.refused = True
        self._loop.call_soon_threadsafe(self._refuse)

    @abstractmethod
    def _refuse(self) -> None:
        """Answer where that is possible, and end the connection. Called in the loop's thread."""
