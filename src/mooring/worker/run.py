"""One worker: become the right user, import the application, serve it through an engine."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mooring import __version__
from mooring.application.failure import own_traceback
from mooring.application.model import Application
from mooring.engines import Engine, Serving
from mooring.engines import check as check_engine
from mooring.engines import load as load_engine
from mooring.errors import ApplicationError, EngineEndedError, MooringError
from mooring.instrument.drain import DrainState
from mooring.logs.log import show_traceback
from mooring.settings import engines
from mooring.system import forks, lifeline, process
from mooring.system.unpatched import native
from mooring.worker import (
    advice,
    apart,
    descriptors,
    fork_safety,
    heartbeat,
    idle_loops,
    memory,
    messages,
    setup,
)
from mooring.worker import seat as seats
from mooring.worker.assignment import Assignment
from mooring.worker.seat import SeatArbiterRows
from mooring.worker.setup import set_up
from mooring.worker.wrap import Loaded, collect_garbage, load_wrapped

if TYPE_CHECKING:
    from mooring.instrument.refusals import Refusals
    from mooring.logs.log import Log
    from mooring.plan.plan import Plan
    from mooring.scoreboard.row import Row


def run(assignment: Assignment) -> int:
    """Serve until drained. Returns the exit code; where it is not 0, reports why over the report pipe."""
    return reporting(assignment, _serve)


def probe(assignment: Assignment) -> int:
    """Import the application as a worker would and report what it is, for `mooring check`; serve nothing."""
    os.dup2(2, 1)  # stdout is for the findings, not for what the application prints
    sys.stdout = sys.stderr
    return reporting(assignment, _look)


_PATIENCE = 3.0
"""Seconds for a failed worker's threads and atexit functions; after that its replacement waits no longer."""


def reporting(assignment: Assignment, work: Callable[[Assignment], None]) -> int:
    """Set up, then `work`. Returns the exit code; where it is not 0, reports why over the report pipe."""
    code = _reporting(assignment, work)
    if code:
        with suppress(RuntimeError):  # the system refuses one more thread
            native("_thread", "start_new_thread")(_leave_within, (_PATIENCE, code, native("time", "sleep")))
    return code


def _leave_within(seconds: float, code: int, sleep: Callable[[float], None]) -> None:
    sleep(seconds)
    os._exit(code)


def _reporting(assignment: Assignment, work: Callable[[Assignment], None]) -> int:
    assignment.context.log.set_level(assignment.plan.settings.log_level)  # the level of its generation
    _guard(assignment)
    try:
        work(set_up(assignment) if assignment.application is None else assignment)
    except MooringError as error:
        shown = getattr(error, "traceback", "")
        if shown:
            show_traceback(shown)
        tell(assignment.report, "failed", message=str(error), code=error.exit_code)
        return error.exit_code
    except Exception as error:
        why = _upgraded()
        if why:
            tell(assignment.report, "failed", message=why, code=ApplicationError.exit_code)
        from mooring.logs.bridge import crashed

        crashed(assignment.context.log, error)
        return ApplicationError.exit_code if why else 1
    return 0


def _guard(assignment: Assignment) -> None:
    """Keep what is mooring's out of what the application will fork."""
    forks.guard(engines.server_modules())
    seat = assignment.seat.keep if assignment.seat is not None else ()
    listeners = [each.fileno() for each in assignment.doors.sockets]
    for fd in (*listeners, assignment.report, *seat, *lifeline.descriptors()):
        forks.disown(fd)


def _upgraded() -> str:
    """Why a worker may fail without a fault of the application: mooring was upgraded. Empty where it was not.

    A forked worker then imports from the new version's files what the supervisor has not imported.
    """
    from importlib import metadata

    try:
        found = metadata.version("mooring")
    except metadata.PackageNotFoundError:
        return ""
    if found == __version__:
        return ""
    return f"mooring {found} is installed now, and {__version__} is running: restart it"


def tell(report: int, event: str, **facts: Any) -> None:
    """Send one message to the supervisor, in one write."""
    os.write(report, messages.encode(event, {"pid": os.getpid(), **facts}))


def preload(assignment: Assignment) -> Application:
    """For a template: do what a worker does up to the import of its application and its engine."""
    from mooring.application import loader
    from mooring.instrument import wrap  # noqa: F401 (workers need it: so they share it)
    from mooring.instrument.otel import start  # noqa: F401 (workers need it: so they share it)
    from mooring.logs import bridge

    _prepare_import(assignment)
    plan = assignment.plan
    application = loader.load(plan.target, plan.settings.interface)
    bridge.imported(engines.loggers())
    advice.give(assignment, application)
    engine = engines.choose(plan.settings.engine, application.interface)
    check_engine(engine, plan)
    load_engine(engine)
    return application


def _prepare_import(assignment: Assignment) -> None:
    """Before the application is imported: set up logging, line buffering, live reload and the debugger."""
    from mooring.logs.bridge import configure
    from mooring.worker import bytecode, debugger

    setup.print_lines_at_once()
    setup.record_metrics(assignment)
    level = setup.engine_log_level(assignment.plan)
    loggers = engines.loggers(own_logging=False)
    handler = configure(assignment.context.log, level, assignment.context.files, loggers)
    signal.signal(signal.SIGUSR1, lambda *_: handler.reopen())
    if assignment.plan.settings.logging_conf is not None:
        from mooring.logs import configuration

        configuration.apply(assignment.plan.settings.logging_conf, assignment.plan.target.search)
    _watch_access_loggers(assignment.plan)
    if assignment.plan.settings.reload:
        bytecode.install()
        setup.share_terminal()
    if assignment.plan.settings.debugpy is not None and assignment.seat is not None:
        debugger.listen(assignment.plan.settings.debugpy)


def _refusals(loaded: Callable[[], Loaded], log: Log) -> Refusals:
    from mooring.instrument.refusals import Refusals

    def warn(line: str, **fields: object) -> None:
        log.record("warning", line, fields, told=fields)

    return Refusals(lambda: loaded().row(), warn)


def _fullness(loaded: Callable[[], Loaded]) -> Callable[[bool], None]:
    from mooring.scoreboard.row import FULL

    def full(is_full: bool) -> None:
        loaded().row().cells[FULL] = float(is_full)

    return full


def _watch_access_loggers(plan: Plan) -> None:
    """Have what the application sets on the servers' access loggers count for the access log."""
    given = plan.explained.get("access_log")
    if plan.settings.access_log is None or given is None:
        return
    from mooring.logs.access import loggers

    asked = not given.origin.startswith(("default", "profile"))
    names = engines.access_loggers()
    loggers.watch(names, engines.server_modules(), insists=asked, setting=plan.settings.access_log)


def _serve(assignment: Assignment) -> None:
    plan = assignment.plan
    if assignment.application is None:
        _prepare_import(assignment)
    loaded: list[Loaded] = []
    serves = False
    drain = DrainState()
    arbiter_rows = _arbiter_rows(assignment)
    longest = heartbeat.timeout(plan.settings)
    if assignment.seat is not None and assignment.seat.stacks >= 0:
        heartbeat.answer(assignment.seat.stacks)

    def load() -> Application:
        if not loaded:
            loaded.append(load_wrapped(assignment, arbiter_rows, drain))
        return loaded[0].application

    def ready() -> None:
        nonlocal serves
        serves = True
        _ready(assignment, load(), engine, started)
        if arbiter_rows is None:
            limited = plan.settings.max_worker_memory is not None
            _serves(loaded[0].row(), assignment, memory.SAMPLE if limited else memory.LOOK)
            if longest is not None:
                seconds, names = heartbeat.every(longest), assignment.doors.names
                heartbeat.start(loaded[0].row(), seconds, load().interface, names, plan.threads)

    engine = plan.settings.engine  # "auto" is decided below, by the interface
    if not plan.has_arbiter:  # an arbiter's workers each import the application
        engine = engines.choose(engine, load().interface)
    check_engine(engine, plan)
    if plan.has_arbiter and plan.revision == 1 and plan.explained["workers"].origin == "tuned":
        plan = dataclasses.replace(plan, workers=1)  # the others start once the plan is fitted
    started = plan.workers if plan.has_arbiter else 1
    collect_garbage()
    refused = _refusals(lambda: loaded[0], assignment.context.log)
    serving = Serving(
        plan,
        load,
        assignment.doors,
        ready=ready,
        drain=drain,
        resized=lambda workers: tell(assignment.report, "size", workers=workers),
        arbiter_rows=arbiter_rows,
        booted=lambda: _serves(loaded[0].row(), assignment),
        gone=lambda pid: tell(assignment.report, "gone", worker=pid),
        metrics=setup.metrics_folder(assignment),
        moved=lambda: heartbeat.moved(loaded[0].row()) if loaded else None,
        in_flight=lambda: loaded[0].row().in_flight(time.monotonic()) if loaded else [],
        refused=refused,
        full=_fullness(lambda: loaded[0]),
        orders=assignment.report,
        leaving=lambda why: tell(assignment.report, "leaving", message=why),
    )
    try:
        _run_engine(load_engine(engine), serving, lambda: serves)
    finally:
        refused.tell()


def _run_engine(engine: Engine, serving: Serving, serves: Callable[[], bool]) -> None:
    """Serve until drained. Raises EngineEndedError where an engine that serves ends without an order to.

    The workers of an engine's arbiter come back here too: by SystemExit, at their end.
    """
    drain = serving.drain
    try:
        engine.serve(serving)
    except (SystemExit, KeyboardInterrupt) as error:
        if serving.plan.has_arbiter or not serves():
            raise
        raise EngineEndedError(f"{error!r} has ended the engine", own_traceback(error)) from error
    if drain.unasked or not (drain.asked or serving.plan.has_arbiter):
        raise EngineEndedError(drain.unasked or "the engine has ended by itself")


def _look(assignment: Assignment) -> None:
    os.environ["OTEL_SDK_DISABLED"] = "true"  # nothing is served, so there is nothing to trace
    before = fork_safety.snapshot()
    application = load_wrapped(assignment).application
    if assignment.plan.settings.preload != "off":
        fork_safety.enforce(
            fork_safety.find(before), assignment.plan.settings.preload, assignment.context.log
        )
    engine = engines.choose(assignment.plan.engine, application.interface)
    check_engine(engine, assignment.plan)
    _ready(assignment, application, engine)


def _arbiter_rows(assignment: Assignment) -> SeatArbiterRows | None:
    """What gives the seat's rows to the workers of an engine's arbiter; None without an arbiter."""
    seat = assignment.seat
    return SeatArbiterRows(seat) if seat is not None and assignment.plan.has_arbiter else None


def _serves(row: Row, assignment: Assignment, look: float = memory.LOOK) -> None:
    """Note that it serves; name its idle loops; watch memory, descriptors and children from now on."""
    assignment.doors.serve()
    memory.watch(row, look)
    seats.ready(row)
    descriptors.watch(assignment.context.log)
    apart.watch(lambda found: tell(assignment.report, "apart", children=found))
    idle_loops.warn(assignment.context.log)


def _ready(assignment: Assignment, application: Application, engine: str, workers: int = 1) -> None:
    tell(
        assignment.report,
        "ready",
        interface=application.interface,
        framework=application.framework,
        engine=engine,
        target=application.target,
        memory=process.proportional_set_size(),
        workers=workers,
    )
