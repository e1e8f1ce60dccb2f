"""The lifespan protocol between an engine and the application, so that every engine treats it alike.

The engine always sees a complete protocol, whatever the application does: one that does not know lifespan (it
raises or returns) is served all the same, as the ASGI specification asks. A failing startup is kept for the
adapter to raise, and told to the engine without its text. Not for requests: those pass through untouched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mooring.application import failure
from mooring.application.model import Message, Receive, Send

_SHUTDOWN_FAILED = "the application's lifespan shutdown failed: %s"


class Lifespan:
    """An ASGI application whose lifespan is watched; `failure` is the reason once its startup has failed."""

    def __init__(self, app: Callable[..., Any], log: logging.Logger) -> None:
        self.failure: failure.BootError | None = None
        self.app = app  # what requests may be given to without this
        self._log = log

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Any:
        """Plain, not async: requests must not pay for one more coroutine."""
        if scope["type"] == "lifespan":
            return _Run(self, self.app, self._log, receive, send).run(scope)
        return self.app(scope, receive, send)

    def check(self) -> None:
        """Raise BootError, with the application's own traceback, where the startup has failed."""
        if self.failure is not None:
            raise self.failure from None


class _Run:
    def __init__(
        self, owner: Lifespan, app: Callable[..., Any], log: logging.Logger, receive: Receive, send: Send
    ) -> None:
        self.owner, self.app, self.log = owner, app, log
        self.engine_receive, self.engine_send = receive, send
        self.last = ""  # the last message that the engine gave
        self.started = self.done = False

    async def run(self, scope: Any) -> None:
        try:
            await self.app(scope, self.receive, self.send)
        except Exception as error:
            self.ended(error)
        if self.owner.failure is not None:
            await self.engine_send({"type": "lifespan.startup.failed", "message": ""})
            return
        # The application is through: complete in its place what it left out.
        if not self.last:
            await self.receive()
        if not self.started:
            await self.engine_send({"type": "lifespan.startup.complete"})
        if self.last != "lifespan.shutdown":
            await self.receive()
        if not self.done:
            await self.engine_send({"type": "lifespan.shutdown.complete"})

    async def receive(self) -> Any:
        message = await self.engine_receive()
        self.last = message["type"]
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        text = message.get("message") or ""
        if kind == "lifespan.startup.failed":
            self.owner.failure = _failure(_last_line(text), text if "\n" in text.strip() else "")
        elif kind == "lifespan.shutdown.failed":
            self.done = self.last == "lifespan.shutdown"
            self.log.error(_SHUTDOWN_FAILED, text.rstrip())
            if self.done:
                await self.engine_send({"type": "lifespan.shutdown.complete"})
        else:
            self.started = self.started or kind == "lifespan.startup.complete"
            self.done = self.done or kind == "lifespan.shutdown.complete"
            await self.engine_send(message)

    def ended(self, error: Exception) -> None:
        """The application raised: what that means depends on how far it had come."""
        trace = failure.own_traceback(error).rstrip()
        if self.owner.failure is not None:  # it has told; frameworks raise on top of that
            if not self.owner.failure.traceback:
                self.owner.failure = _failure(_last_line(trace) or f"{type(error).__name__}: {error}", trace)
        elif self.started:
            if not self.done:
                self.log.error(_SHUTDOWN_FAILED, trace)
        elif self.last:
            self.log.warning(
                "the application raised in its lifespan startup; served without lifespan: %s", trace
            )
        else:
            self.log.debug("the application does not support lifespan: %s", failure.one_line(error))


def _failure(reason: str, trace: str) -> failure.BootError:
    reason = failure.one_line(reason) or "no reason given"
    return failure.BootError(f"the application's lifespan startup failed: {reason}", trace)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
