"""A debugger's way into a worker: debugpy, which speaks the Debug Adapter Protocol of VS Code and others.

https://github.com/microsoft/debugpy. Not for what it changes about the plan (plan/plan.py,
plan/development.py).
"""

from __future__ import annotations

import os
import socket
import time

from mooring.errors import BindError
from mooring.system.address import Address

_PATIENCE = 10.0  # seconds: at a reload the last worker's debugger may have the port for a moment


def listen(address: Address) -> None:
    """In a worker, before its application is imported: listen for a debugger, without waiting for one.

    Raises BindError where the address stays taken.
    """
    host = address.host or "0.0.0.0"
    _wait_until_free(host, address.port)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # frozen modules: it only warns
    import debugpy  # some 0.3 s, for who asked for it

    try:
        debugpy.listen((host, address.port))
    except (OSError, RuntimeError) as error:
        raise BindError(f"MOORING_DEBUGPY={address}: {error}") from None


def _wait_until_free(host: str, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            ):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise BindError(f"MOORING_DEBUGPY={host}:{port}: {error.strerror or error}") from None
        time.sleep(0.05)
