"""Lets a debugger attach to a worker: by debugpy, for the Debug Adapter Protocol of VS Code and others.

https://github.com/microsoft/debugpy. Not for how it changes the plan (plan/plan.py, plan/development.py).
"""

from __future__ import annotations

import os
import socket
import time

from mooring.errors import BindError
from mooring.system.address import Address

_PATIENCE = 10.0  # seconds: at a reload the old worker's debugger may hold the port for a moment


def listen(address: Address) -> None:
    """In a worker, before its application is imported: listen for a debugger, without waiting for one.

    Raises BindError where the address stays in use.
    """
    host = address.host or "0.0.0.0"
    _wait_until_free(host, address.port)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else it warns of frozen modules
    import debugpy  # takes some 0.3 s, so only where it is asked for

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
