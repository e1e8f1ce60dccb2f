# mypy: disable-error-code=no-untyped-call
"""The WebSockets of gunicorn's own ASGI worker, with limits and with a close code that reaches its client.

By itself gunicorn closes the connection of a client that is still sending a message which was refused: that
gets a reset and not the 1009. It bounds no fragments, asks no client that is silent, reads what came without
a turn for others, and takes the mask off byte by byte: 16 MiB hold the event loop for seconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from mooring.engines import Serving
from mooring.engines.common import websockets
from mooring.engines.common.websockets import FRAGMENTS, LINGER, POLICY, SILENCE, TOO_BIG, UNANSWERED, refused

_TURN = 50  # frames after which others have their turn
_PING = 0x9  # the opcode: RFC 6455, 5.2


class _Limited:
    """The mixin for gunicorn's class."""

    mooring_serving: Serving  # set on the class
    mooring_refused = False
    mooring_heard = True
    mooring_frames = 0
    _reading_paused: bool
    _close_sent: bool

    def feed_data(self, data: bytes) -> None:
        self.mooring_heard = True
        super().feed_data(data)  # type: ignore[misc]

    async def _read_frame(self) -> Any:
        self.mooring_frames += 1
        if self.mooring_frames % _TURN == 0:
            await asyncio.sleep(0)
        server: Any = super()
        frame = await server._read_frame()
        fragments: list[bytes] = self._fragments  # type: ignore[attr-defined]
        if len(fragments) <= FRAGMENTS:
            return frame
        fragments.clear()
        self.mooring_refuse("a message in too many fragments")
        await self._send_close(POLICY, "too many fragments")
        return None

    def _unmask(self, payload: bytes, masking_key: bytes) -> bytes:
        size = len(payload)
        mask = (masking_key * (size // 4 + 1))[:size]
        whole = int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")
        return whole.to_bytes(size, "little")

    async def _send_close(self, code: int, reason: str = "") -> None:
        server: Any = super()
        if code == TOO_BIG and not self._close_sent:
            refused(self.log.error_log, self.max_message_size)  # type: ignore[attr-defined]
            self.mooring_refuse("a message that is too large")
            self.close_code = code
        await server._send_close(code, reason)

    def mooring_refuse(self, detail: str) -> None:
        """Count it; what the client still sends is read for a while."""
        self.mooring_refused = True
        self.mooring_tell(detail)

    def mooring_tell(self, detail: str) -> None:
        """Count it."""
        scope: Any = self.scope  # type: ignore[attr-defined]
        self.mooring_serving.refused("websocket", scope.get("client"), detail)

    async def mooring_hears(self) -> bool:
        """Whether the client sends something within PING; also where nothing is read, and at the end."""
        self.mooring_heard = False
        await asyncio.sleep(websockets.PING)
        return self.mooring_heard or self._reading_paused or self._close_sent

    async def mooring_ask(self) -> None:
        """Ask a client that is silent; end the connection of one that does not answer."""
        me: Any = self
        while not self._close_sent:
            if await self.mooring_hears() or not me.accepted:
                continue
            await me._send_frame(_PING, b"")
            if not await self.mooring_hears():
                self.mooring_tell("no answer to a ping")
                self.close_code = UNANSWERED
                await self._send_close(UNANSWERED, "no answer to a ping")
                me.feed_eof()  # the application sees the end
                me.transport.close()
                asyncio.get_running_loop().call_later(LINGER, me.transport.abort)

    async def run(self) -> None:
        me, server = self, super()  # type: Any, Any
        asking = asyncio.ensure_future(self.mooring_ask())
        try:
            await server.run()
        finally:
            asking.cancel()
        end = time.monotonic() + LINGER
        while self.mooring_refused and not me._eof and time.monotonic() < end:
            me._buffer.clear()
            me._resume_reading()
            me._data_event.clear()
            try:
                await asyncio.wait_for(me._data_event.wait(), SILENCE)
            except TimeoutError:
                return


def install(serving: Serving) -> None:
    """Replace gunicorn's class by one with the mixin, in this process."""
    from gunicorn.asgi import websocket as module  # here: workers of other classes do without

    own: Any = module.WebSocketProtocol
    made: Any = type("WebSocket", (_Limited, own), {"mooring_serving": serving})
    module.WebSocketProtocol = made  # type: ignore[misc]
