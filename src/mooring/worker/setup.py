"""A worker's set-up before the application is imported: its environment, TLS files, user and folder."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from typing import Any

from mooring.errors import ConfigurationError
from mooring.metrics.multiprocess.folder import VARIABLE
from mooring.plan.plan import Plan
from mooring.system import forks, process
from mooring.system.accounts import Account
from mooring.system.memfd import memory
from mooring.worker.assignment import Assignment


def set_up(assignment: Assignment) -> Assignment:
    """Set environment, TLS files, user and folder, in this order: root reads the key, so the user need not.

    Raises ConfigurationError.
    """
    environ = dict(assignment.context.environ)  # it may be os.environ itself
    os.environ.clear()
    os.environ.update(environ)
    account = assignment.context.account
    if assignment.plan.tls:
        _check_tls(assignment)
        plan = _with_tls_files(assignment.plan, copy=account is not None)
        assignment = assignment._replace(plan=plan)
    if account is not None:
        try:
            process.drop_privileges(account.uid, account.gid, account.groups)
        except OSError as error:
            raise ConfigurationError(
                f"MOORING_USER: cannot become {account.name}: {error.strerror}"
            ) from None
        _check_readable(account)
        os.environ.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
    try:
        os.chdir(assignment.context.folder)
    except OSError as error:
        raise ConfigurationError(
            f"the working folder {assignment.context.folder}: {error.strerror}"
        ) from None
    # The folder of the `mooring` command must not be on the application's import path.
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(sys.argv[0])):
        del sys.path[0]
    for entry in reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if entry and entry not in sys.path:
            sys.path.insert(0, entry)  # exported by the pre-start hook
    return assignment


def _check_tls(assignment: Assignment) -> None:
    """Refuse bad TLS files. Workers check them: so at each roll too, and the supervisor loads no OpenSSL."""
    from mooring.plan import tls

    for warning in tls.check(assignment.plan.settings):
        assignment.context.log.warning(warning)


def _check_readable(account: Account) -> None:
    """Raise ConfigurationError where the user may not read Python itself, for example below /root."""
    for file in (os.__file__, __file__):
        folder = os.path.dirname(file)
        if not os.access(folder, os.R_OK | os.X_OK):
            raise ConfigurationError(
                f"MOORING_USER: {account.name} may not read {folder}, which holds Python or mooring; "
                "install both where every user may read them"
            )


def _with_tls_files(plan: Plan, copy: bool) -> Plan:
    """The plan with absolute paths of its TLS files; `copy`: of copies in memory, which any user can read."""
    changes: dict[str, Any] = {}
    for name in ("tls_certificate", "tls_key", "tls_client_ca"):
        path = getattr(plan.settings, name)
        if path is None:
            continue
        changes[name] = os.path.abspath(path)
        if copy:
            fd = forks.disown(memory(f"mooring-{name}"))
            with open(path, "rb") as source:
                os.write(fd, source.read())
            changes[name] = f"/proc/self/fd/{fd}"
    return dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, **changes))


def print_lines_at_once() -> None:
    """Have what the application prints written at the end of each line, also into a pipe or a file.

    Python would keep up to 8 KiB of it, which a killed worker takes along: the lines that say why it hung.
    Nothing is done to a stream that is closed, or is the application's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(line_buffering=True)


def record_metrics(assignment: Assignment) -> None:
    """Have prometheus_client record into the metrics folder, from its import on.

    Several workers need its multi-process mode for that; one alone keeps the mode without, and its metrics.
    """
    folder = assignment.context.metrics
    if folder is None:
        return
    if several_workers(assignment):
        os.environ[VARIABLE] = folder
        return
    from mooring.metrics.multiprocess import one_process

    one_process.install(folder)


def several_workers(assignment: Assignment) -> bool:
    """Whether more than one worker is planned, or this is one that TTIN has added."""
    seat = assignment.seat
    return assignment.plan.workers > 1 or (seat is not None and seat.slot > 0)


def metrics_folder(assignment: Assignment) -> str | None:
    """The folder of the application's metrics; None: they are not merged."""
    if not assignment.plan.settings.app_metrics:
        return None
    return assignment.context.metrics or os.environ.get(VARIABLE)


def engine_log_level(plan: Plan) -> str:
    """The engine's own log level: not info with live reload, whose start and stop lines would hide others.

    The profiles of older images keep info: their users expect these lines.
    """
    level = plan.settings.log_level
    return "warning" if plan.settings.reload and not plan.profile.older and level == "info" else level


def share_terminal() -> None:
    """In the worker: join the terminal's foreground, if there is one, so that breakpoint() can read from it.

    The foreground is the supervisor's process group; a group of the worker's own would be in the background
    (termios(3)). Ctrl-C then reaches the worker too, which ignores it, and ends when the supervisor tells it.
    """
    if os.isatty(0):
        with contextlib.suppress(OSError):  # the supervisor is about to end
            os.setpgid(0, os.getpgid(os.getppid()))
