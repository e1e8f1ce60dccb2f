"""An imported application, what is known of it, and the types of its two interfaces, ASGI and WSGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple

# ASGI 3: https://asgi.readthedocs.io/en/stable/specs/main.html
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

# WSGI: PEP 3333
Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGI = Callable[[Environ, StartResponse], Iterable[bytes]]


class Application(NamedTuple):
    """An imported application.

    `call` is the ASGI 3 or WSGI callable, `interface` asgi or wsgi, `framework` the distribution it comes
    from (lower case, "" where unknown), `target` its import string as `module:attribute`.
    """

    call: Callable[..., Any]
    interface: str
    framework: str
    target: str
