"""The lifespan protocol between an engine and the application, the same on every engine.

The engine always sees a complete protocol, whatever the application does. An application without support for
lifespan (it raises or returns) is still served, as the ASGI specification requires; what it raised is logged,
unless that only says so. A failed startup is kept
for the adapter to raise; the engine gets it without the text. Not for requests: they pass through unchanged.
"""

from __future__ import annotations

import linecache
import logging
from collections.abc import Callable
from typing import Any

from mooring.application import failure
from mooring.application.model import Message, Receive, Send

_SHUTDOWN_FAILED = "the application's lifespan shutdown failed: %s"


class Lifespan:
    """An ASGI application whose lifespan is watched. `failure` is set if its startup has failed."""

    def __init__(self, app: Callable[..., Any], log: logging.Logger) -> None:
        self.failure: failure.BootError | None = None
        self.app = app  # an engine may pass requests to it directly
        self._log = log

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Any:
        """Not a coroutine function: that would cost each request one more coroutine."""
        if scope["type"] == "lifespan":
            return _Run(self, self.app, self._log, receive, send).run(scope)
        return self.app(scope, receive, send)

    def check(self) -> None:
        """Raise BootError, with the application's own traceback, if the startup has failed."""
        if self.failure is not None:
            raise self.failure from None


class _Run:
    def __init__(
        self, owner: Lifespan, app: Callable[..., Any], log: logging.Logger, receive: Receive, send: Send
    ) -> None:
        self.owner, self.app, self.log = owner, app, log
        self.engine_receive, self.engine_send = receive, send
        self.last = ""  # the type of the last message that the engine sent
        self.started = self.done = False

    async def run(self, scope: Any) -> None:
        try:
            await self.app(scope, self.receive, self.send)
        except Exception as error:
            self.ended(error)
        if self.owner.failure is not None:
            await self.engine_send({"type": "lifespan.startup.failed", "message": ""})
            return
        # The application has returned: complete the protocol in its place.
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
        """Handle an exception of the application; its meaning depends on how far the lifespan had come."""
        trace = failure.own_traceback(error).rstrip()
        if self.owner.failure is not None:  # reported already; frameworks report the failure, then raise
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
            level = logging.DEBUG if _refuses(error) else logging.WARNING
            self.log.log(level, "served without lifespan, for which the application raised %s", _shown(error))


def _refuses(error: Exception) -> bool:
    """Whether an exception for the lifespan scope says that there is no support for it, and is no mistake."""
    if isinstance(error, NotImplementedError) or "lifespan" in failure.one_line(error):
        return True
    where = failure.frames(error)
    if not isinstance(error, AssertionError) or not where:
        return False
    return "scope" in linecache.getline(*where[-1])  # assert scope["type"] == "http"


def _shown(error: Exception) -> str:
    """An exception in one line, with the place where it was raised."""
    text = failure.one_line(error)
    return f"{type(error).__name__}{': ' if text else ''}{text}{failure.place(error, ())}"


def _failure(reason: str, trace: str) -> failure.BootError:
    reason = failure.one_line(reason) or "no reason given"
    return failure.BootError(f"the application's lifespan startup failed: {reason}", trace)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
