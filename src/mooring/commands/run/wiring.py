"""Wire the supervisor: its policy, the control socket, live reload, its first and its last words."""

from __future__ import annotations

import gc
import os
import selectors
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, cast

from mooring.admin import instance as runtimes
from mooring.admin.ports import Ports
from mooring.admin.routes import Routes
from mooring.admin.server import Admin
from mooring.logs import log as logs
from mooring.logs.log import Log, LogFiles
from mooring.metrics.multiprocess.client import AppMetrics
from mooring.metrics.multiprocess.folder import MetricsFolder
from mooring.plan.plan import Plan
from mooring.plan.replan import Start
from mooring.settings.table import Settings
from mooring.supervisor import lifecycle
from mooring.supervisor.hangs import HangWatch
from mooring.supervisor.lifecycle import Cause
from mooring.supervisor.loop import Supervisor
from mooring.supervisor.reconfigure import Renewal
from mooring.supervisor.recycle import Recycler
from mooring.supervisor.stacks import PostMortem
from mooring.supervisor.surge import Headroom
from mooring.supervisor.workers import Workers
from mooring.system import process
from mooring.system.accounts import Account
from mooring.system.signals import SignalQueue
from mooring.worker import heartbeat
from mooring.worker.messages import Failure

if TYPE_CHECKING:
    from mooring.supervisor.reload.watcher import Watcher
    from mooring.supervisor.templates import Templates


class Place(NamedTuple):
    """What was opened for the supervisor: its addresses, its runtime folder, the admin endpoint's ports, the
    folder of the application's metrics and the user that writes there; and what the settings came from.
    """

    urls: list[str]
    runtime: runtimes.Runtime
    ports: Ports
    metrics: MetricsFolder | None
    account: Account | None
    environ: Mapping[str, str]
    folder: str
    start: Start


def supervise(
    workers: Workers,
    queue: SignalQueue,
    place: Place,
    *,
    log: Log,
    files: LogFiles,
    last: ExitStack,
) -> int:
    """Supervise until nothing is left; `last` is closed by the caller. Returns the exit code."""
    supervisor = Supervisor(workers, log, policy(workers.plan.settings), queue)
    supervisor.urls = place.urls
    supervisor.on_fit = lambda fitted: announce(fitted, place.urls, log)
    supervisor.on_reopen = lambda: _reopen(files, log, workers)
    if workers.access is not None:
        supervisor.on_stranger.append(workers.access.exited)
        supervisor.timers.append(workers.access)
    watch = HangWatch(supervisor)
    post_mortem = PostMortem(supervisor, watch.silent)
    supervisor.on_kill = post_mortem.examine
    supervisor.timers += [watch, post_mortem, Recycler(supervisor)]
    supervisor.on_measure = Headroom(supervisor).measure
    routes = _open_admin(place, supervisor, workers.selector)
    if place.metrics is not None:
        _merge_metrics(place.metrics, place.account, supervisor, routes, last)
    if workers.plan.settings.preload != "off":
        _preload(supervisor)
    if workers.plan.settings.companions:
        _accompany(place, supervisor, workers.plan.settings)
    _renew(supervisor, place.start)
    gc.freeze()
    gc.enable()
    watcher = _watch(supervisor, log, workers.selector)
    if watcher is not None:
        last.callback(watcher.stop)
    code = supervisor.run()
    if workers.access is not None:
        workers.access.deadline = supervisor.fleet.stop_deadline
    if code != 0:
        last.callback(logs.last_words, _why(supervisor.fleet.outcome, workers.plan.settings))
    last.close()
    return code


def _preload(supervisor: Supervisor) -> None:
    """Have workers forked from templates that have imported the application."""
    workers = supervisor.workers
    templates = cast("Templates", workers.spawner)

    def lost(serial: int, ended: process.Reaped, failure: Failure | None) -> None:
        handle = workers.handles.pop(serial)
        handle.failure = failure or handle.failure
        supervisor.lost(handle, ended)

    def refused(serial: int, detail: str) -> None:
        workers.release(workers.handles.pop(serial))
        supervisor.post(lifecycle.SpawnFailed(serial, detail))

    templates.on_exit, templates.on_refused = lost, refused
    supervisor.on_notice.append(templates.told)
    supervisor.on_stranger.append(templates.exited)
    supervisor.timers.append(templates)
    supervisor.held_by.append(templates.busy)


def _accompany(place: Place, supervisor: Supervisor, settings: Settings) -> None:
    """Run the companions beside the workers."""
    from mooring.supervisor.companions import Companions, Surroundings

    around = Surroundings(
        place.environ, place.folder, place.account, lambda: supervisor.plan.settings.graceful_timeout
    )
    found = Companions(
        settings.companions,
        around,
        supervisor.log,
        lambda: 0.0 if supervisor.hurried else supervisor.fleet.stop_deadline,
    )
    supervisor.on_notice.append(found.told)
    supervisor.on_stranger.append(found.exited)
    supervisor.timers.append(found)
    supervisor.held_by.append(found.busy)
    supervisor.companions = found.all


def _merge_metrics(
    folder: MetricsFolder, account: Account | None, supervisor: Supervisor, routes: Routes, last: ExitStack
) -> None:
    """Have /metrics show what the application counts itself."""
    client = AppMetrics(folder, supervisor.selector, supervisor.log, account)
    supervisor.on_dying = client.process_gone
    supervisor.on_told_gone = client.told_gone
    supervisor.timers.append(client)
    routes.app_metrics = client.request
    last.callback(client.close)


def _open_admin(place: Place, supervisor: Supervisor, selector: selectors.BaseSelector) -> Routes:
    """Answer the control socket, and where MOORING_ADMIN_BIND and MOORING_PROBE_BIND say.

    An abstract control socket has no folder that keeps others out: the peer is checked.
    """
    runtime, ports = place.runtime, place.ports
    log, routes = supervisor.log, Routes(supervisor)
    admin = Admin(selector, routes.failed)
    owner = os.geteuid()
    admin.open(runtime.socket, routes.control, allowed=lambda peer: runtimes.peer_allowed(peer, owner))
    for listener in ports.admin:
        admin.open(listener.socket, routes.public)
    for listener in ports.probes:
        admin.open(listener.socket, routes.probe)
    supervisor.timers.append(admin)
    supervisor.admin_urls = [listener.url(tls=False) for listener in ports.admin]
    supervisor.probe_urls = [listener.url(tls=False) for listener in ports.probes]
    if ports.admin:
        log.info(f"admin endpoint, for reading: {', '.join(supervisor.admin_urls)}")
    if ports.probes:
        log.info(f"liveness and readiness: {', '.join(supervisor.probe_urls)}")
    return routes


def _reopen(files: LogFiles, log: Log, workers: Workers) -> None:
    for refused in files.reopen():
        log.warning(f"{refused}; going on with the old one")
    if workers.access is not None:
        workers.access.reopen()
    log.info("log files are open anew")


def _why(outcome: lifecycle.Outcome | None, settings: Settings) -> str:
    """Why it could not boot, for the last line on stderr."""
    if outcome is None:
        return "the application could not boot"
    if outcome.why.cause is Cause.BOOT_DEADLINE:
        return f"the application was not ready within {settings.boot_timeout:g} s (MOORING_BOOT_TIMEOUT)"
    if outcome.why.cause is Cause.NOT_SPAWNED:
        return f"no worker process could be started: it {outcome.why}"
    return str(outcome.why)


def _watch(supervisor: Supervisor, log: Log, selector: selectors.BaseSelector) -> Watcher | None:
    """Live reload, where it is on: every burst of changes is a roll."""
    if not supervisor.plan.settings.reload:
        return None
    from mooring.supervisor.reload.watcher import Watcher

    def changed(path: str, files: int) -> None:
        if supervisor.fleet.outcome is None:
            more = f" (and {files - 1} more)" if files > 1 else ""
            log.info(f"Worker reloading: {path} modified{more}")
            supervisor.post(lifecycle.Roll())  # a save; new settings come by HUP

    watcher = Watcher(supervisor.plan, log, selector, changed, supervisor.workers.started_ns)
    supervisor.on_stranger.append(watcher.exited)
    watcher.start()
    return watcher


def _renew(supervisor: Supervisor, start: Start) -> None:
    """Have a roll that is asked for take up new settings."""
    renewal = Renewal(supervisor, start, policy)
    supervisor.on_roll = renewal.ask
    supervisor.on_notice.append(renewal.told)
    supervisor.on_stranger.append(renewal.exited)
    supervisor.timers.append(renewal)
    supervisor.held_by.append(renewal.busy)


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
    """The one line that says what was chosen and why."""
    count = f"{plan.workers} worker{'s' if plan.workers != 1 else ''}"
    reason = plan.explained["workers"].reason or plan.explained["workers"].origin
    framework = f" ({plan.framework})" if plan.framework else ""
    threads = f" of {plan.threads} threads" if plan.interface == "wsgi" and plan.threads > 1 else ""
    log.info(
        f"plan: {plan.engine} serves {plan.interface.upper()}{framework} with {count}{threads}: {reason}"
    )
    if plan.settings.reload and plan.profile.older:
        for url in urls:
            log.info(banner(plan, url))
    for warning in plan.warnings:
        if warning.startswith((f"{plan.workers} workers were asked for", "max_in_flight=")):
            log.warning(warning)


def banner(plan: Plan, url: str) -> str:
    """The line by which the older images' users know, with live reload, that it serves."""
    if plan.engine == "hypercorn":
        return f"Running on {url} (CTRL + C to quit)"
    return f"{plan.engine.capitalize()} running on {url} (Press CTRL+C to quit)"
