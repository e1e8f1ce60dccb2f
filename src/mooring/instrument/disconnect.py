"""Whether the client of a request that ended without a response has disconnected. Not for other requests."""

from __future__ import annotations

import sys
from types import CoroutineType
from typing import Any

_MESSAGES = 4  # most messages that are read: parts of the body may come first


def client_left(scope: Any, receive: Any) -> bool:
    """Whether the next message is `http.disconnect`; False if there is no message yet, or it is not known.

    So requests that go well cost nothing. It is not known on trio, whose `receive` must not be abandoned, nor
    if the engine would ask the client for its body (RFC 9110, 10.1.1). hypercorn gives the message only once.
    """
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return False
    try:
        if any(name == b"expect" for name, _ in scope["headers"]):
            return False
        kind: object = "http.request"
        for _ in range(_MESSAGES):
            if kind == "http.request":
                kind = _next(receive)
    except Exception:
        return False  # the engine's failure must not replace the application's exception
    return kind == "http.disconnect"


def _next(receive: Any) -> object:
    """The type of the next message; None if it has not arrived yet."""
    waiting = receive()
    if not isinstance(waiting, CoroutineType):
        return None
    try:
        waiting.send(None)
    except StopIteration as done:
        return done.value["type"]
    waiting.close()
    return None
