"""hypercorn's requests, with what the limits on a body need: how much has come, and whether all of it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Body, EndBody, Event, Request
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream

from mooring.engines.hypercorn.connections import of
from mooring.engines.hypercorn.limits import Pace

_handle = HTTPStream.handle  # super() would cost each event more


class LimitedHTTPStream(HTTPStream):
    """A request whose body is counted, and refused with 413 if it is larger than `most` bytes."""

    most = 0  # set on the class; 0 is no limit
    body = 0
    ended = False
    pace: Pace | None = None

    def handle(self, event: Event) -> Coroutine[Any, Any, None]:
        """As hypercorn's. Not a coroutine function: that would cost each event one more coroutine."""
        kind = type(event)
        if kind is Body:
            self.body += len(event.data)  # type: ignore[attr-defined]
            if self.body > self.most > 0:
                return self._too_large()
        elif kind is EndBody:
            self.ended = True
        elif kind is Request and self.most and _length(event) > self.most:
            return self._too_large()
        return _handle(self, event)

    async def _too_large(self) -> None:
        if self.closed:
            return
        protocol: Any = self.send.__self__  # type: ignore[attr-defined]
        detail = f"more than {self.most} bytes"
        if hasattr(self, "scope"):
            begun = self.state is not ASGIHTTPState.REQUEST
        else:  # the application has not begun
            self.closed, begun, self.scope = True, False, {}  # type: ignore[typeddict-item]
        if isinstance(protocol, h2.H2Protocol):
            await protocol.refuse(self.stream_id, "body_size", 0 if begun else 413, detail)  # type: ignore[attr-defined]
        else:
            await of(protocol).refuse("body_size", 413, detail)


def _length(event: Any) -> int:
    for name, value in event.headers:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def install(max_body: int) -> None:
    """Replace hypercorn's class by this one, in this process."""
    LimitedHTTPStream.most = max_body
    for module in (h11, h2):
        vars(module)["HTTPStream"] = LimitedHTTPStream
