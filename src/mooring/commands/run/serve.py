"""From a plan to a fleet: open what outlives the workers, fork worker 0, and hand over to the supervisor.

Worker 0 is forked as early as it can be; the rest of the supervisor is imported once it has reported, or a
signal has come: with one core, the application's import would wait for ours.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from contextlib import ExitStack
from socket import socket
from typing import NamedTuple

from mooring import __version__
from mooring.admin import instance as runtimes
from mooring.admin import ports as adminports
from mooring.application import discovery
from mooring.commands.run import config_dump
from mooring.commands.run.prestart import After
from mooring.logs.access.keeper import LogKeeper
from mooring.logs.log import Log, LogFiles
from mooring.metrics.multiprocess.folder import MetricsFolder, open_folder
from mooring.plan import redact
from mooring.plan.plan import Plan
from mooring.plan.replan import Start
from mooring.settings import engines
from mooring.supervisor.workers import Forks, Workers
from mooring.system import accounts, listeners
from mooring.system.listeners import ACTIVATION_VARIABLES, Listener
from mooring.system.signals import SignalQueue
from mooring.worker import run
from mooring.worker.assignment import Assignment
from mooring.worker.seat import Seat


class Logs(NamedTuple):
    """Where lines go: mooring's own log, the access log's descriptor (None: off), and the files to reopen."""

    own: Log
    access: int | None
    files: LogFiles


def serve(plan: Plan, after: After, logs: Logs, queue: SignalQueue, start: Start) -> int:
    """Serve until stopped. Returns the exit code; raises MooringError for what cannot be opened."""
    account = accounts.find(plan.settings.user)
    if plan.settings.reload:
        discovery.check_found(plan.target)
    for warning in plan.warnings:
        logs.own.warning(redact.without_arguments(warning, plan.explained["app"].value))
    with ExitStack() as last:
        opened = listeners.open_listeners(
            plan.binds,
            backlog=plan.settings.backlog,
            unix_mode=plan.settings.unix_mode,
            environ=after.environ,
        )
        last.callback(listeners.close_listeners, opened)
        runtime = runtimes.open_runtime(plan.settings, opened[0].address, after.environ)
        last.callback(runtime.close)
        ports = adminports.open_ports(plan.settings, after.environ)
        last.callback(ports.close)
        metrics = _metrics_folder(plan, after, account, runtime.path, logs.own)
        if metrics is not None:
            last.callback(metrics.close)
        config_dump.show_dump(plan)
        workers = _workers(plan, after, account, opened, logs, metrics)
        last.callback(workers.close)
        workers.spawn_early()
        urls = [listener.url(plan.tls) for listener in opened]
        logs.own.info(
            f"mooring {__version__}: {redact.call(str(plan.target))}, listening at {', '.join(urls)}"
        )
        workers.wait_for_news(queue.fileno())

        from mooring.commands.run.wiring import Place, supervise

        place = Place(urls, runtime, ports, metrics, account, after.environ, _working(plan, after), start)
        return supervise(workers, queue, place, log=logs.own, files=logs.files, last=last)


def _metrics_folder(
    plan: Plan, after: After, account: accounts.Account | None, runtime: str | None, log: Log
) -> MetricsFolder | None:
    """Where the workers record what the application counts with prometheus_client."""
    if not plan.settings.app_metrics:
        return None
    others = os.geteuid() == 0 and engines.row(plan.engine).changes_user  # who may not enter the folder
    private = None if others else runtime
    return open_folder(private, account, after.environ, _working(plan, after), log)


def _working(plan: Plan, after: After) -> str:
    return after.cwd or plan.settings.app_root or "."


def _workers(  # noqa: PLR0917
    plan: Plan,
    after: After,
    account: accounts.Account | None,
    opened: list[Listener],
    logs: Logs,
    metrics: MetricsFolder | None,
) -> Workers:
    """The workers, with what every worker is given."""
    environ = {name: value for name, value in after.environ.items() if name not in ACTIVATION_VARIABLES}
    if metrics is not None:
        environ.update(metrics.environ())

    files = logs.files.without(logs.access)

    def assigned(current: Plan, report: int, seat: Seat | None) -> Assignment:
        return Assignment(
            plan=current,
            sockets=tuple(listener.socket for listener in opened),
            report=report,
            seat=seat,
            log=logs.own,
            files=files,
            account=account,
            environ=environ,
            folder=_working(current, after),
        )

    def work(current: Plan, report: int, seat: Seat) -> Callable[[], int]:
        assignment = assigned(current, report, seat)
        return lambda: run.run(assignment)

    keep = [listener.socket.fileno() for listener in opened]
    keep.append(logs.own.fd)
    keeper = LogKeeper(logs.access, logs.files, logs.own) if logs.access is not None else None
    workers = Workers(plan, Forks(work, keep), keep, selectors.DefaultSelector(), keeper)
    if plan.settings.preload != "off":
        _preload(workers, assigned, logs.own)
    return workers


def _preload(workers: Workers, assigned: Callable[[Plan, int, None], Assignment], log: Log) -> None:
    """Have the workers's workers forked from templates that have imported the application."""
    from mooring.supervisor.templates import Templates
    from mooring.system import process
    from mooring.worker import template

    def begin(current: Plan, channel: socket, supervisor: int) -> Callable[[], int]:
        assignment = assigned(current, channel.fileno(), None)
        return lambda: template.run(assignment, channel, supervisor)

    process.adopt_orphans()
    workers.spawner = Templates(workers, begin, log)
