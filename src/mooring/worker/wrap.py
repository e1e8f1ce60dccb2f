"""Wraps the application: it is imported, traced, limited and instrumented, in this order."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mooring.application.model import Application
from mooring.instrument.drain import DrainState
from mooring.settings import engines
from mooring.worker import advice, messages
from mooring.worker import seat as seats
from mooring.worker.assignment import Assignment
from mooring.worker.seat import SeatArbiterRows

if TYPE_CHECKING:
    from mooring.instrument.meter import Meter
    from mooring.scoreboard.row import Row


class Loaded(NamedTuple):
    """The wrapped application, and the row that this process writes."""

    application: Application
    row: Callable[[], Row]


def load_wrapped(
    assignment: Assignment, arbiter_rows: SeatArbiterRows | None = None, drain: DrainState | None = None
) -> Loaded:
    """Import the application, unless a template has, and wrap it. Raises ApplicationError.

    `arbiter_rows` is set in the processes of an engine with an arbiter, `drain` where something is served.
    """
    from mooring.application import loader
    from mooring.instrument import handshake
    from mooring.instrument import wrap as instrument_wrap
    from mooring.instrument.otel import start
    from mooring.logs import bridge
    from mooring.logs.access import loggers

    plan = assignment.plan
    traced = start.start(plan, assignment.context.log, assignment.context.files)
    application = assignment.application
    if application is None:
        # the setting's interface, not the plan's: a roll may change it
        application = loader.load(plan.target, plan.settings.interface)
        bridge.imported(engines.loggers())
        if _speaks(assignment, arbiter_rows):
            advice.give(assignment, application)
    if plan.has_arbiter:
        collect_garbage()  # in an arbiter's worker; other workers do it after the engine's import
    engine = engines.choose(plan.settings.engine, application.interface)
    loggers.engine_first(engines.row(engine).access_logger)
    inner = traced(handshake.watched(application, engine, assignment.context.log))

    def wrap() -> Loaded:
        meter = _meter(assignment, arbiter_rows, drain or DrainState())
        call = instrument_wrap.wrap(_limited(inner, assignment, meter.row), plan, meter)
        return Loaded(application._replace(call=call), lambda: meter.row)

    if arbiter_rows is not None and arbiter_rows.arbiter == os.getpid():
        return _preloaded(wrap, arbiter_rows)
    return wrap()


def _speaks(assignment: Assignment, arbiter_rows: SeatArbiterRows | None) -> bool:
    """Whether this process says what concerns all workers: the first slot's, or an arbiter's first worker."""
    seat = assignment.seat
    if seat is None or arbiter_rows is None:
        return seat is None or seat.slot == 0
    return arbiter_rows.index == next(iter(seat.rows), None)


def _limited(application: Application, assignment: Assignment, row: Row) -> Application:
    """The application, with the limits that the settings set for its requests."""
    plan = assignment.plan
    most, seconds = plan.settings.max_in_flight, plan.settings.request_timeout
    if not (most or seconds):
        return application
    from mooring.instrument.limits import limit

    def recycle(why: str) -> None:
        """Have this worker replaced."""
        if plan.has_arbiter:
            logging.getLogger("mooring").warning("%s: this worker is replaced", why)
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os.write(assignment.report, messages.encode("leaving", {"pid": os.getpid(), "message": why}))

    call = limit(
        application.call,
        application.interface,
        row,
        most,
        seconds,
        threads=plan.threads,
        recycle=recycle,
    )
    return application._replace(call=call)


def _preloaded(wrap: Callable[[], Loaded], arbiter_rows: SeatArbiterRows) -> Loaded:
    """With gunicorn's `preload_app` the arbiter imports the application; each worker wraps it anew."""
    now = wrap()
    calls, rows = [now.application.call], [now.row()]

    def forked() -> None:
        if os.getppid() == arbiter_rows.arbiter and arbiter_rows.index is not None:
            again = wrap()
            calls[0], rows[0] = again.application.call, again.row()

    def call(*given: Any) -> Any:
        return calls[0](*given)

    os.register_at_fork(after_in_child=forked)
    return Loaded(now.application._replace(call=call), lambda: rows[0])


def _meter(assignment: Assignment, arbiter_rows: SeatArbiterRows | None, drain: DrainState) -> Meter:
    """What the instrumentation writes to: the row and the ring of this process."""
    from mooring.instrument.meter import Lines, Meter
    from mooring.scoreboard.row import Row

    seat, settings = assignment.seat, assignment.plan.settings
    if seat is None:
        return Meter(Row(), drain=drain)
    index = arbiter_rows.index if arbiter_rows is not None else next(iter(seat.rows), None)
    taken = seats.take(seat, index)
    drain.on_begin(lambda: seats.draining(taken.row))
    if taken.write is None:
        return Meter(taken.row, drain=drain)
    from mooring.logs.access import loggers, rules
    from mooring.logs.access.line import formatter

    line_rules = rules.parse(settings.access_log_skip, settings.access_log_sample)
    form = formatter(settings.access_log_format or assignment.plan.profile.access_format)
    if settings.logging_conf is not None and settings.access_log == "-":
        from mooring.logs import configuration

        form = configuration.access_form() or form
    unix = any(address.kind != "tcp" for address in assignment.plan.binds)
    wanted = line_rules.wanted if line_rules is not None else None
    access = loggers.watched
    access.say = assignment.context.log.info if _speaks(assignment, arbiter_rows) else None
    return Meter(taken.row, Lines(form, taken.write, wanted, "unix" if unix else "-", access), drain)


def collect_garbage() -> None:
    """Collect garbage from now on. Objects that exist now stay: they are frozen, and not examined again."""
    gc.freeze()
    gc.enable()
