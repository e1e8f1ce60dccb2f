"""Says at the first WebSocket handshake for a WSGI application that the engine has none, and which one has.

WSGI knows no WebSockets. Libraries for them take the connection's socket, or an object of the server's, out
of the environ, and fail in ways of their own where it is not there. Only applications that have imported such
a library are watched: for all others a request costs nothing more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from mooring.application.model import WSGI, Application, Environ, StartResponse
from mooring.logs.log import Log
from mooring.settings import engines

LIBRARIES = (
    *("simple_websocket", "flask_sock", "flask_sockets", "engineio", "geventwebsocket", "eventlet.websocket"),
    *("ws4py", "wsproto", "uwsgidecorators", "channels"),
)
# What servers put into the environ for these libraries.
MEANS = frozenset(
    ("gunicorn.socket", "werkzeug.socket", "wsgi.websocket", "eventlet.input", "uwsgi.websocket")
)

_ENDED = "mooring.websocket_ended"


def watched(application: Application, engine: str, log: Log) -> Application:
    """The WSGI application with a warning at its first handshake that cannot succeed; else as it is."""
    if application.interface != "wsgi" or not has_library():
        return application
    call, told = application.call, False

    def checked(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal told
        upgrade = not told and environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        if upgrade and MEANS.isdisjoint(environ):
            told = True
            log.warning(words(engine, environ.get("PATH_INFO", "")))
        try:
            found: Iterable[bytes] = call(environ, start_response)
        except StopIteration:
            if "HTTP_UPGRADE" not in environ:
                raise
            environ[_ENDED] = True  # so it is counted as answered
            start_response("101 Switching Protocols", [])
            return []
        return found

    return application._replace(call=checked)


def has_library() -> bool:
    """Whether the application has imported a library for WebSockets."""
    return any(name in sys.modules for name in LIBRARIES)


def ending(call: WSGI) -> WSGI:
    """The wrapped application, for a server that sends nothing more after StopIteration.

    Such libraries raise it when a WebSocket has ended: the server would answer the handshake else.
    """

    def ended(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        found = call(environ, start_response)
        if _ENDED in environ:
            raise StopIteration
        return found

    return ended


def words(engine: str, path: str) -> str:
    """What is said of a handshake that cannot succeed."""
    what = f"a WebSocket handshake for {path[:200]}"
    if "channels" in sys.modules:
        return f"{what}: channels serves WebSockets by ASGI alone: name the ASGI application (MOORING_APP)"
    name, row = next((name, each) for name, each in engines.REGISTRY.items() if each.wsgi_websockets)
    setting = f"MOORING_ENGINE={name}"
    if engine == name:
        setting = f"MOORING_WORKER_CLASS={row.threaded_classes[0]}"
    elif name not in engines.installed():
        setting += f" ({row.install})"
    return (
        f"{what}: {engine} has no WebSockets for WSGI applications; {setting} has "
        "(each open one takes a thread: MOORING_THREADS)"
    )
