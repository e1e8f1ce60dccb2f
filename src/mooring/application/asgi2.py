"""Adapt ASGI 2 applications (called with the scope, then with receive and send) to ASGI 3.

Source: https://asgi.readthedocs.io/en/stable/specs/main.html#legacy-applications and
https://asgi.readthedocs.io/en/stable/specs/lifespan.html.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mooring.application.model import ASGI, Message, Receive, Scope, Send

Asgi2 = Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]


def adapt(application: Asgi2) -> ASGI:
    """The application as an ASGI 3 callable.

    Most ASGI 2 applications do not support lifespan and raise an exception on it. The adapter then sends the
    completion of startup and shutdown for them, on every engine. A `lifespan.startup.failed` that the
    application sends itself is passed on.
    """

    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _Lifespan(receive, send).run(application, scope)
        else:
            await application(scope)(receive, send)

    return asgi3


class _Lifespan:
    """One lifespan. Sends the completion messages that the application does not send."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._asked = 0
        self._answered = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._asked += 1
        return message

    async def send(self, message: Message) -> None:
        self._answered += 1
        await self._send(message)

    async def run(self, application: Asgi2, scope: Scope) -> None:
        try:
            await application(scope)(self.receive, self.send)
        except Exception:
            if self._answered:
                raise  # the application supports lifespan: this exception is a failure
        else:
            if self._answered:
                return
        for event in ("lifespan.startup", "lifespan.shutdown"):
            if not self._asked:
                await self.receive()
            self._asked = max(0, self._asked - 1)
            await self.send({"type": f"{event}.complete"})
