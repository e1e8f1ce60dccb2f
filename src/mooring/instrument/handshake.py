"""Says at the first WebSocket handshake for a WSGI application that the engine has none, and which one has.

WSGI knows no WebSockets. Libraries for them take the connection's socket, or an object of the server's, out
of the environ, and fail in ways of their own where it is not there. Only applications that have imported such
a library are watched: for all others a request costs nothing more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from mooring.application.model import Application, Environ, StartResponse
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


def watched(application: Application, engine: str, log: Log) -> Application:
    """The WSGI application with a warning at its first handshake that cannot succeed; else as it is."""
    if application.interface != "wsgi" or not any(name in sys.modules for name in LIBRARIES):
        return application
    call, told = application.call, False

    def checked(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal told
        upgrade = not told and environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        if upgrade and MEANS.isdisjoint(environ):
            told = True
            log.warning(words(engine, environ.get("PATH_INFO", "")))
        found: Iterable[bytes] = call(environ, start_response)
        return found

    return application._replace(call=checked)


def words(engine: str, path: str) -> str:
    """What is said of a handshake that cannot succeed."""
    what = f"a WebSocket handshake for {path}"
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
