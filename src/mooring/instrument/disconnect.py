"""Whether the client of a request that ended without an answer has left. Not for those that are answered."""

from __future__ import annotations

import sys
from types import CoroutineType
from typing import Any

_MESSAGES = 4  # parts of the body that may be unread


def client_left(scope: Any, receive: Any) -> bool:
    """Whether the next message is `http.disconnect`; False where there is none yet, or that is not known.

    So nothing has to be noted while a request goes well. Not on trio, whose receive may not be left halfway,
    nor where the engine would ask the client for its body (RFC 9110, 10.1.1). hypercorn says it only once.
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
        return False  # an engine's own failure, which must not stand in for the application's
    return kind == "http.disconnect"


def _next(receive: Any) -> object:
    """The type of the next message, None where it would have to be waited for."""
    waiting = receive()
    if not isinstance(waiting, CoroutineType):
        return None
    try:
        waiting.send(None)
    except StopIteration as done:
        return done.value["type"]
    waiting.close()
    return None
