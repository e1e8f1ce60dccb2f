"""The application's interface before gunicorn forks, for its worker class must be known by then.

The application is imported in a child that ends with that: gunicorn's arbiter stays without it, and each of
its workers imports its own, as they do when the class is named.
"""

from __future__ import annotations

import os
import sys
import traceback

from mooring.application.failure import BootError
from mooring.engines import Serving
from mooring.engines.gunicorn.report import Reports
from mooring.errors import MooringError
from mooring.metrics.multiprocess.files import retire_in


def find_interface(serving: Serving) -> str:
    """Asgi or wsgi. Raises ApplicationError or ConfigurationError where the application cannot be loaded."""
    reports = Reports()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(serving, reports, write)
    os.close(write)
    with os.fdopen(read) as pipe:
        found = pipe.read()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if serving.metrics is not None:
        retire_in(serving.metrics, pid, forget=True)
    os.waitpid(pid, 0)
    reports.check()
    if not found:
        raise BootError("the application ended the process that imported it")
    return found


def _child(serving: Serving, reports: Reports, write: int) -> None:
    try:
        os.write(write, serving.load().interface.encode())
    except MooringError as error:
        reports.fail(error)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
