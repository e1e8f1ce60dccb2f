"""The demo applications: served by `mooring demo`, and by the images as long as they hold no application.

Each names the engine that really serves it. A demo for an older image responds with that image's content type
(docs/profiles.md). None needs a framework, so each starts whatever is installed.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from typing import Any

from mooring.settings.engines import REGISTRY

_TEXT, _JSON, _HTML = "text/plain", "application/json", "text/html; charset=utf-8"


def greeting() -> str:
    """The text `Hello world! From mooring, <engine> and Python X.Y`."""
    version = ".".join(platform.python_version_tuple()[:2])
    loaded = (name for name in REGISTRY if f"mooring.engines.{name}.adapter" in sys.modules)
    engine = next(loaded, "no engine")
    return f"Hello world! From mooring, {engine} and Python {version}"


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Respond to every HTTP request with the greeting as plain text (ASGI)."""
    if scope["type"] == "http":
        await _answer(send, 200, _TEXT, greeting())
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)


async def json_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Respond to `/` with {"message": greeting}, as the Starlette and FastAPI images did (ASGI)."""
    if scope["type"] == "http":
        found = scope["path"] == "/"
        body = {"message": greeting()} if found else {"detail": "Not Found"}
        await _answer(send, 200 if found else 404, _JSON, json.dumps(body, separators=(",", ":")))
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Respond to `/` with the greeting as HTML, as the Flask image did (WSGI)."""
    found = environ["PATH_INFO"] in {"", "/"}
    body = (greeting() if found else "Not Found").encode()
    headers = [("Content-Type", _HTML), ("Content-Length", str(len(body)))]
    start_response("200 OK" if found else "404 Not Found", headers)
    return [body]


async def _answer(send: Any, status: int, kind: str, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Any, send: Any) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
