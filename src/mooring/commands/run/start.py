"""`mooring run`: the whole start in the order in which it happens. Reads like a table of contents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mooring.commands.run import prestart, reexec, serve
from mooring.commands.run.prepare import prepare
from mooring.errors import ConfigurationError
from mooring.logs import log as logs
from mooring.logs.log import Log, LogFiles
from mooring.plan.replan import Replanned
from mooring.settings import engines
from mooring.settings.invocation import Invocation
from mooring.settings.resolve import resolve
from mooring.settings.table import Settings
from mooring.system import accounts, standard
from mooring.system.signals import SignalQueue, Stopped
from mooring.worker.context import Context


def run(cli: Mapping[str, str], environ: Mapping[str, str], folder: Path, queue: SignalQueue) -> int:
    """Serve until stopped. Returns the exit code; raises MooringError for what the user has to correct."""
    # The form of an error that is found before the settings are resolved.
    logs.set_last_form(cli.get("log_format") or environ.get("MOORING_LOG_FORMAT", ""))
    try:
        resolved = resolve(cli, environ, folder)
        files = LogFiles()
        log = open_log(resolved.settings, files, environ)
        before = Invocation(cli, environ, folder)
        queue.check("at its start")
        after = reexec.taken_up(before) or prestart.run_before(resolved, before, queue, log)
        if after is None:
            return 0
        if reexec.needed(environ, after.environ):
            reexec.again(after)
        again = resolve(cli, after.environ, after.folder)
        if again.settings != resolved.settings:
            files = LogFiles()
            log = open_log(again.settings, files, after.environ)
        logs.set_last_form(log.form)
        plan = prepare(again, after.environ, queue)
        queue.check("at its start")
        if plan.conf is not None:  # it may set the log files
            files = LogFiles()
            log = open_log(plan.settings, files, after.environ)
        access = open_access(plan.settings, files)
        account = accounts.find(plan.settings.user)
        working = after.working_folder(plan.settings.app_root)
        context = Context(after.environ, working, account, log, access, files)
        return serve.serve(Replanned(plan, again), after, context, queue)
    except Stopped as stop:
        log.info(str(stop))
        return 0
    finally:
        queue.retire()


def open_log(settings: Settings, files: LogFiles, environ: Mapping[str, str] | None = None) -> Log:
    """Mooring's own log, as the settings say; `environ` may colour it on a terminal.

    Raises ConfigurationError where its file cannot be opened.
    """
    fd = _log_fd(files, settings.error_log, 2, "error_log")
    fd = standard.without_reader() if fd in standard.closed else fd
    return Log(
        fd,
        level=settings.log_level,
        form=settings.log_format,
        quiet=settings.error_log is None,
        colored=logs.wants_color(fd, environ or {}),
        engines=engines.logger_roots(),
    )


def open_access(settings: Settings, files: LogFiles) -> int | None:
    """The access log's descriptor; None where it is off. Raises ConfigurationError.

    Where stdout was closed, it is one that takes nothing: so lost lines are counted, and told of once.
    """
    if settings.access_log is None:
        return None
    fd = _log_fd(files, settings.access_log, 1, "access_log")
    return standard.without_reader() if fd in standard.closed else fd


def _log_fd(files: LogFiles, path: str | None, default: int, name: str) -> int:
    try:
        return files.open(path, default)
    except OSError as error:
        raise ConfigurationError(f"{name}: {path} cannot be opened for writing: {error.strerror}") from None
