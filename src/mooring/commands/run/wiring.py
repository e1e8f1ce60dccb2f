"""Wires the supervisor: its policy, its parts, the plan's log line, and the last line on stderr."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from mooring.admin import instance
from mooring.admin.access import Access
from mooring.admin.ports import Ports
from mooring.admin.routes import Routes
from mooring.admin.server import Admin
from mooring.application.discovery import DEMO
from mooring.commands.run.prepare import prepare
from mooring.logs import log as logs
from mooring.logs.log import Log, LogFiles
from mooring.metrics.multiprocess.client import AppMetrics
from mooring.metrics.multiprocess.folder import MetricsFolder
from mooring.plan import replan
from mooring.plan.plan import Plan
from mooring.plan.replan import Replanned
from mooring.settings import engines
from mooring.settings.invocation import Invocation
from mooring.settings.table import Settings
from mooring.supervisor import lifecycle
from mooring.supervisor.hangs import HangWatch
from mooring.supervisor.lifecycle import Cause
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.reconfigure import Reconfigure
from mooring.supervisor.recycle import Recycler
from mooring.supervisor.stacks import HungStacks
from mooring.supervisor.surge import SurgeMeasure
from mooring.supervisor.workers import Workers
from mooring.system import process
from mooring.system.accounts import Account
from mooring.system.signals import SignalQueue
from mooring.worker import heartbeat
from mooring.worker.context import Context
from mooring.worker.messages import Failure

if TYPE_CHECKING:
    from mooring.supervisor.companions import Companions
    from mooring.supervisor.reload.watcher import Watcher
    from mooring.supervisor.templates import Templates


class Opened(NamedTuple):
    """What the start has opened: the listeners (their addresses), the instance's folder and control socket,
    the admin endpoint's ports, the folder of the application's metrics; and `last`, which closes all of it.
    """

    urls: list[str]
    runtime: instance.InstanceFolder
    ports: Ports
    metrics: MetricsFolder | None
    last: ExitStack


def supervise(
    workers: Workers,
    queue: SignalQueue,
    context: Context,
    opened: Opened,
    *,
    made: Replanned,
    invocation: Invocation,
) -> int:
    """Supervise until nothing is left. Returns the exit code.

    `made` has the settings and the plan that serve first; each roll makes the next ones from `invocation`.
    """
    settings, last = made.plan.settings, opened.last
    supervisor = Supervisor(workers, context.log, policy(settings), queue)
    supervisor.urls = opened.urls
    supervisor.on_fit = lambda fitted: announce(fitted, opened.urls, context.log)
    supervisor.on_reopen = lambda: _reopen(context.files, context.log, workers)
    supervisor.on_measure = SurgeMeasure(supervisor).measure
    routes = Routes(supervisor, _access(settings))
    if workers.access is not None:
        supervisor.add(workers.access)
    hangs = HangWatch(supervisor)
    supervisor.add(hangs)
    supervisor.add(_hung_stacks(supervisor, hangs))
    supervisor.add(Recycler(supervisor))
    supervisor.add(_admin(supervisor, routes, opened))
    if opened.metrics is not None:
        supervisor.add(_metrics(supervisor, routes, opened.metrics, context.account, last))
    if settings.preload != "off":
        supervisor.add(_templates(supervisor))
    if settings.companions:
        supervisor.add(_companions(supervisor, context))
    supervisor.add(_reconfigure(supervisor, made, invocation))
    gc.freeze()
    gc.enable()
    if settings.reload:
        supervisor.add(_watcher(supervisor, last))
    code = supervisor.run()
    if workers.access is not None:
        workers.access.deadline = supervisor.fleet.stop_deadline
    if code != 0:
        last.callback(logs.last_words, _why(supervisor.fleet.outcome, workers.plan.settings))
    last.close()
    return code


# -- the parts beside the workers ----------------------------------------------------------------------------


def _hung_stacks(supervisor: Supervisor, hangs: HangWatch) -> HungStacks:
    """Have the stacks of a hung worker recorded before it is killed."""
    stacks = HungStacks(supervisor, hangs.silent)
    supervisor.on_kill = stacks.examine
    return stacks


def _admin(supervisor: Supervisor, routes: Routes, opened: Opened) -> Admin:
    """Serve the control socket, and the addresses of MOORING_ADMIN_BIND and MOORING_PROBE_BIND.

    The control socket checks its peer, since an abstract socket has no folder that keeps other users out.
    """
    runtime, ports, log = opened.runtime, opened.ports, supervisor.log
    admin = Admin(supervisor.selector, routes.failed)
    owner = os.geteuid()
    admin.open(runtime.socket, routes.control, allowed=lambda peer: instance.peer_allowed(peer, owner))
    for listener in ports.admin:
        admin.open(listener.socket, partial(routes.public, tcp=listener.address.kind == "tcp"))
    for listener in ports.probes:
        admin.open(listener.socket, routes.probe)
    supervisor.admin_urls = [listener.url(tls=False) for listener in ports.admin]
    supervisor.probe_urls = [listener.url(tls=False) for listener in ports.probes]
    if ports.admin:
        log.info(f"admin endpoint, for reading: {', '.join(supervisor.admin_urls)}")
    if ports.probes:
        log.info(f"liveness and readiness: {', '.join(supervisor.probe_urls)}")
    return admin


def _access(settings: Settings) -> Access:
    """Who may read at MOORING_ADMIN_BIND; a name that it is bound to is one of its names."""
    bound = [address.host for address in settings.admin_bind or () if address.host]
    return Access([*bound, *settings.admin_hosts], settings.admin_token)


def _metrics(
    supervisor: Supervisor, routes: Routes, folder: MetricsFolder, account: Account | None, last: ExitStack
) -> AppMetrics:
    """Have /metrics show the application's own metrics."""
    client = AppMetrics(folder, supervisor.selector, supervisor.log, account)
    supervisor.on_dying = client.process_gone
    supervisor.on_told_gone = client.told_gone
    routes.app_metrics = client.request
    last.callback(client.close)
    return client


def _templates(supervisor: Supervisor) -> Templates:
    """Have workers forked from templates that have imported the application."""
    workers = supervisor.workers
    templates = cast("Templates", workers.spawner)

    def lost(serial: int, ended: process.Reaped, failure: Failure | None) -> None:
        handle = workers.handles.pop(serial)
        handle.failure = failure or handle.failure
        supervisor.lost(handle, ended)

    def refused(serial: int, errno: int) -> None:
        workers.release(workers.handles.pop(serial))
        supervisor.post(lifecycle.SpawnFailed(serial, errno))

    templates.on_exit, templates.on_refused = lost, refused
    return templates


def _companions(supervisor: Supervisor, context: Context) -> Companions:
    """Run the companions beside the workers."""
    from mooring.supervisor.companions import Companions

    companions = Companions(
        supervisor.plan.settings.companions,
        context,
        lambda: supervisor.plan.settings.graceful_timeout,
        lambda: 0.0 if supervisor.hurried else supervisor.fleet.stop_deadline,
    )
    supervisor.companions = companions.all
    return companions


def _reconfigure(supervisor: Supervisor, made: Replanned, invocation: Invocation) -> Reconfigure:
    """Have every roll that is asked for take up new settings."""
    reconfigure = Reconfigure(supervisor, made, partial(replan.remake, invocation, prepare), policy)
    supervisor.on_roll = reconfigure.ask
    return reconfigure


def _watcher(supervisor: Supervisor, last: ExitStack) -> Watcher:
    """Live reload: every burst of changes is a roll; the first application takes the demo's place."""
    from mooring.supervisor.reload.watcher import Watcher

    def changed(path: str, files: int) -> None:
        if supervisor.fleet.outcome is None:
            more = f" (and {files - 1} more)" if files > 1 else ""
            supervisor.log.info(f"Worker reloading: {path} modified{more}")
            if supervisor.plan.target.reason == DEMO:  # an application may have come into its place
                supervisor.on_roll()
            else:
                supervisor.post(lifecycle.Roll())  # with the same settings: HUP takes up new ones

    workers = supervisor.workers
    watcher = Watcher(supervisor.plan, supervisor.log, supervisor.selector, changed, workers.started_ns)
    watcher.start()
    last.callback(watcher.stop)
    return watcher


# -- callbacks, the policy, and lines for people -------------------------------------------------------------


def _reopen(files: LogFiles, log: Log, workers: Workers) -> None:
    for refused in files.reopen():
        log.warning(f"{refused}; going on with the old one")
    if workers.access is not None:
        workers.access.reopen()
    log.info("log files are open anew")


def _why(outcome: lifecycle.Outcome | None, settings: Settings) -> str:
    """Why the application could not boot, for the last line on stderr."""
    if outcome is None:
        return "the application could not boot"
    if outcome.why.cause is Cause.BOOT_DEADLINE:
        return f"the application was not ready within {settings.boot_timeout:g} s (MOORING_BOOT_TIMEOUT)"
    if outcome.why.cause is Cause.NOT_SPAWNED:
        return f"no worker process could be started: it {outcome.why}"
    return str(outcome.why)


def policy(settings: Settings) -> lifecycle.Policy:
    """The lifecycle's times and limits from the settings."""
    return lifecycle.Policy(
        boot_timeout=settings.boot_timeout,
        heartbeat_timeout=heartbeat.timeout(settings),
        grace=settings.graceful_timeout,
        drain_delay=settings.drain_delay,
        jitter=0.2,
        jitter_seed=float(os.getpid()),
        boot_failures_fatal=not settings.reload,
        overlap=not settings.reload and settings.debugpy is None,
    )


def announce(plan: Plan, urls: list[str], log: Log) -> None:
    """Log the line that says what the plan has chosen and why, and the warnings that its second stage added.

    The warnings of the first stage were logged when it was made.
    """
    count = f"{plan.workers} worker{'s' if plan.workers != 1 else ''}"
    reason = plan.explained["workers"].reason or plan.explained["workers"].origin
    framework = f" ({plan.framework})" if plan.framework else ""
    threads = f" of {plan.threads} threads" if plan.interface == "wsgi" and plan.threads > 1 else ""
    log.info(
        f"plan: {plan.engine} serves {plan.interface.upper()}{framework} with {count}{threads}: {reason}"
    )
    if plan.profile.worker_line and plan.engine == plan.profile.defaults["engine"]:  # gunicorn says it itself
        log.info(f"Using worker: {plan.profile.worker_line}")
    if plan.settings.reload and plan.profile.older:
        for url in urls:
            log.info(banner(plan, url))
    for warning in plan.fit_warnings:
        if warning.workers in {None, plan.workers}:
            log.warning(warning.text)


def banner(plan: Plan, url: str) -> str:
    """The line that tells users of older images, with live reload, that the application is served."""
    return engines.row(plan.engine).banner.format(name=plan.engine.capitalize(), url=url)
