"""Finds the application's interface before gunicorn forks: the arbiter must know its worker class by then.

A child process imports the application and ends. So gunicorn's arbiter does not hold the application, and
each of its workers imports it, as when the user names the worker class.
"""

from __future__ import annotations

import io
import os
import sys
import traceback

from mooring.application.failure import BootError
from mooring.engines import Serving
from mooring.engines.gunicorn.report import Reports
from mooring.errors import MooringError
from mooring.metrics.multiprocess.files import retire_in
from mooring.system import forks


def find_interface(serving: Serving) -> str:
    """Asgi or wsgi. Raises ApplicationError or ConfigurationError if the application cannot be loaded."""
    reports = Reports()
    read, write = os.pipe()
    with forks.own():
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=False)  # the workers print what the import prints
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
