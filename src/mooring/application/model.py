"""An imported application, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Application(NamedTuple):
    """An imported application.

    `call` is the ASGI 3 or WSGI callable, `interface` asgi or wsgi, `framework` the distribution it comes
    from (lower case, "" where unknown), `target` its import string as `module:attribute`.
    """

    call: Callable[..., Any]
    interface: str
    framework: str
    target: str
