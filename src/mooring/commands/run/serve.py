"""From a plan to a fleet: open what outlives the workers, fork worker 0, and start the supervisor.

Worker 0 is forked as early as possible. The rest of the supervisor is imported after worker 0 has reported,
or a signal has come: with one core, the application's import would wait for the supervisor's.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from contextlib import ExitStack
from socket import socket

from mooring import __version__
from mooring.admin import instance
from mooring.admin.ports import open_ports
from mooring.application import discovery
from mooring.commands.run import config_dump
from mooring.logs.access.keeper import LogKeeper
from mooring.logs.log import Log
from mooring.metrics.multiprocess.folder import MetricsFolder, open_folder
from mooring.plan import redact
from mooring.plan.plan import Plan
from mooring.plan.replan import Replanned
from mooring.settings import engines
from mooring.settings.invocation import Invocation
from mooring.supervisor.workers import Forks, Workers
from mooring.system import listeners
from mooring.system.doors import Doors
from mooring.system.listeners import ACTIVATION_VARIABLES, Listener
from mooring.system.signals import SignalQueue
from mooring.worker import run
from mooring.worker.assignment import Assignment
from mooring.worker.context import Context
from mooring.worker.seat import Seat


def serve(made: Replanned, invocation: Invocation, context: Context, queue: SignalQueue) -> int:
    """Serve until stopped. Returns the exit code; raises MooringError for what cannot be opened."""
    plan, log = made.plan, context.log
    if plan.settings.reload:
        discovery.check_found(plan.target)
    for warning in plan.warnings:
        log.warning(redact.without_arguments(warning, plan.explained["app"].value))
    with ExitStack() as last:
        opened = listeners.open_listeners(
            plan.binds,
            backlog=plan.settings.backlog,
            unix_mode=plan.settings.unix_mode,
            environ=context.environ,
            source=plan.bind_source,
        )
        last.callback(listeners.close_listeners, opened)
        runtime = instance.open_instance(plan.settings, opened[0].address, context.environ)
        last.callback(runtime.close)
        if runtime.warning:
            log.warning(runtime.warning)
        ports = open_ports(plan.settings, context.environ)
        last.callback(ports.close)
        metrics = _metrics_folder(plan, context, runtime.path)
        if metrics is not None:
            last.callback(metrics.close)
        config_dump.show_dump(plan)
        workers = _workers(plan, invocation, context, opened, metrics)
        last.callback(workers.close)
        workers.spawn_early()
        urls = [listener.url(plan.tls) for listener in opened]
        log.info(f"mooring {__version__}: {redact.call(str(plan.target))}, listening at {', '.join(urls)}")
        workers.wait_for_news(queue.fileno())

        from mooring.commands.run.wiring import Opened, supervise

        found = Opened(urls, runtime, ports, metrics, last)
        return supervise(workers, queue, context, found, made=made, invocation=invocation)


def _metrics_folder(plan: Plan, context: Context, runtime: str | None) -> MetricsFolder | None:
    """Where the workers record what the application counts with prometheus_client."""
    if not plan.settings.app_metrics:
        return None
    others = os.geteuid() == 0 and engines.row(plan.engine).changes_user  # they may not enter `runtime`
    private = None if others else runtime
    return open_folder(private, context.account, context.environ, context.folder, context.log)


def _workers(
    plan: Plan,
    invocation: Invocation,
    context: Context,
    opened: list[Listener],
    metrics: MetricsFolder | None,
) -> Workers:
    """The workers, with what every worker is given."""
    environ = {name: value for name, value in context.environ.items() if name not in ACTIVATION_VARIABLES}
    if metrics is not None and not metrics.own:
        environ.update(metrics.environ())
    common = context.for_workers(environ)
    if metrics is not None and metrics.own:
        common = common._replace(metrics=metrics.path)
    lent = [listener.socket for listener in opened if listener.lent]
    doors = Doors([listener.socket for listener in opened], lent)

    def assigned(current: Plan, report: int, seat: Seat | None) -> Assignment:
        folder = invocation.working_folder(current.settings.app_root)  # a roll may have changed it
        return Assignment(current, doors, report, seat, common._replace(folder=folder))

    def work(current: Plan, report: int, seat: Seat) -> Callable[[], int]:
        assignment = assigned(current, report, seat)
        return lambda: run.run(assignment)

    log = context.log
    keep = [*(each.fileno() for each in doors.sockets), log.fd]
    keeper = LogKeeper(context.access, context.files, log) if context.access is not None else None
    workers = Workers(plan, Forks(work, keep), keep, selectors.DefaultSelector(), keeper)
    workers.leave = doors.leave
    if plan.settings.preload != "off":
        _preload(workers, assigned, log)
    return workers


def _preload(workers: Workers, assigned: Callable[[Plan, int, None], Assignment], log: Log) -> None:
    """Have the workers forked from templates that have imported the application."""
    from mooring.supervisor.templates import Templates
    from mooring.system import process
    from mooring.worker import template

    def begin(current: Plan, channel: socket, supervisor: int) -> Callable[[], int]:
        assignment = assigned(current, channel.fileno(), None)
        return lambda: template.run(assignment, channel, supervisor)

    process.adopt_orphans()
    workers.spawner = Templates(workers, begin, log)
