"""The example that `make run` serves: a plain ASGI application, no framework needed."""

from __future__ import annotations

import json
import os
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request with a greeting and the worker that gave it."""
    if scope["type"] != "http":
        return
    body = json.dumps(
        {"message": "Hello from mooring", "path": scope["path"], "worker": os.getpid()}
    ).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    )
    await send({"type": "http.response.body", "body": body})
