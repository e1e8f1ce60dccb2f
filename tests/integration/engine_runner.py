"""One engine in one process, as mooring's worker runs it, without worker and supervisor.

    python engine_runner.py ENGINE MODULE:ATTRIBUTE INTERFACE FD,FD... NAME=VALUE...

Prints `READY PID` when ready() is called, `DONE` when serve() returned, `ERROR CLASS TEXT` where it raised.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    from mooring import engines, resources
    from mooring.application.discovery import Target
    from mooring.application.model import Application
    from mooring.errors import ApplicationError, MooringError
    from mooring.instrument.drain import DrainState
    from mooring.plan.plan import plan
    from mooring.settings.resolve import resolve
    from mooring.system.doors import Doors

    engine, target, interface, fds, *settings = sys.argv[1:]
    given = dict(part.split("=", 1) for part in settings)
    environ = {**os.environ, **{f"MOORING_{name.upper()}": value for name, value in given.items()}}
    sockets = tuple(socket.socket(fileno=int(fd)) for fd in fds.split(","))
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    module, _, attribute = target.partition(":")
    loaded: list[Application] = []

    def load() -> Application:
        if not loaded:
            try:
                call: Any = getattr(importlib.import_module(module), attribute)
            except Exception as error:
                raise ApplicationError(f"cannot import {module}: {error}") from error
            loaded.append(Application(call, interface, "", target))
        return loaded[0]

    try:
        resolved = resolve({"engine": engine}, environ, Path.cwd())
        found = resources.read(environ=environ)
        conf = None
        if engine == "gunicorn":
            from mooring.plan.server_config.find import find

            conf = find(resolved, environ)
        made = plan(resolved, found, Target(module, attribute, "cli", "", ()), conf)
        ready = lambda: os.write(1, f"READY {os.getpid()}\n".encode())  # noqa: E731 (one write, one line)
        serving = engines.Serving(made, load, Doors(sockets), ready, DrainState())
        if engine != "gunicorn":
            load()
        engines.check(engine, made)
        engines.load(engine).serve(serving)
    except MooringError as error:
        print("ERROR", type(error).__name__, str(error), flush=True)
        print(getattr(error, "traceback", ""), file=sys.stderr)
        return error.exit_code
    print("DONE", flush=True)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
