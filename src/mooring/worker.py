"""One worker: become the right user, import the application, serve it through an engine."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from socket import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from mooring import __version__, engines, exhaustion, heartbeat, process, reports, survivors
from mooring import seat as seats
from mooring.accounts import Account
from mooring.appmetrics.folder import VARIABLE
from mooring.drain import Drain
from mooring.engines import Application, Serving
from mooring.errors import ApplicationError, ConfigurationError, MooringError
from mooring.logs import Files, Log, show_traceback
from mooring.memfd import memory
from mooring.plan import Plan
from mooring.seat import Desk, Seat

if TYPE_CHECKING:
    from mooring.meter import Meter
    from mooring.scoreboard import Row


class Assignment(NamedTuple):
    """What a worker is given: the plan, its listeners, a descriptor for its report, its seat on the
    scoreboard.

    `environ` and `folder` are what the pre-start hook left; `seat` is None where nothing will be served. With
    an `application` it is forked from a template (template.py), which has imported that and done the set-up.
    """

    plan: Plan
    sockets: tuple[socket, ...]
    report: int
    seat: Seat | None
    log: Log
    files: Files
    account: Account | None
    environ: Mapping[str, str]
    folder: str
    application: Application | None = None


class Loaded(NamedTuple):
    """The application with mooring around it, and the row that this process writes."""

    application: Application
    row: Callable[[], Row]


def run(assignment: Assignment) -> int:
    """Serve until drained. Returns the exit code; says over the report pipe why it is not 0."""
    return reporting(assignment, _serve)


def probe(assignment: Assignment) -> int:
    """Import the application as a worker would and report what it is, for `mooring check`; serve nothing."""
    os.dup2(2, 1)  # what the application prints is none of our findings
    sys.stdout = sys.stderr
    return reporting(assignment, _look)


def reporting(assignment: Assignment, work: Callable[[Assignment], None]) -> int:
    """Settle in, then `work`. Returns the exit code; says over the report pipe why it is not 0."""
    assignment.log.set_level(assignment.plan.settings.log_level)  # its generation's
    try:
        work(_settle(assignment) if assignment.application is None else assignment)
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
        from mooring.workerlog import crashed

        crashed(assignment.log, error)
        return ApplicationError.exit_code if why else 1
    return 0


def _upgraded() -> str:
    """Why a worker may fail for no fault of the application's: it is forked, and imports what the supervisor
    has not imported from another version's files.
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
    """One message to the supervisor; shorter than PIPE_BUF, so never interleaved."""
    os.write(report, reports.encode(event, {"pid": os.getpid(), **facts}))


def _settle(assignment: Assignment) -> Assignment:
    """Environment, folder, TLS files and user, in this order: root reads the key, the user never has to."""
    environ = dict(assignment.environ)  # it may be os.environ itself
    os.environ.clear()
    os.environ.update(environ)
    account = assignment.account
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
        os.chdir(assignment.folder)
    except OSError as error:
        raise ConfigurationError(f"the working folder {assignment.folder}: {error.strerror}") from None
    # The command's own folder is not the application's business.
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(sys.argv[0])):
        del sys.path[0]
    for entry in reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if entry and entry not in sys.path:
            sys.path.insert(0, entry)  # exported by the pre-start hook
    return assignment


def _check_tls(assignment: Assignment) -> None:
    """Refuse bad TLS files: here, so at each roll too, and the supervisor holds no OpenSSL."""
    from mooring import tls

    for warning in tls.check(assignment.plan.settings):
        assignment.log.warning(warning)


def _check_readable(account: Account) -> None:
    """Whether the user may read Python itself: an interpreter below /root is for root alone."""
    for file in (os.__file__, __file__):
        folder = os.path.dirname(file)
        if not os.access(folder, os.R_OK | os.X_OK):
            raise ConfigurationError(
                f"MOORING_USER: {account.name} may not read {folder}, which holds Python or mooring; "
                "install both where every user may read them"
            )


def _with_tls_files(plan: Plan, copy: bool) -> Plan:
    """The plan with its TLS files' absolute paths; as copies in memory where root is about to be dropped."""
    changes: dict[str, Any] = {}
    for name in ("tls_certificate", "tls_key", "tls_client_ca"):
        path = getattr(plan.settings, name)
        if path is None:
            continue
        changes[name] = os.path.abspath(path)
        if copy:
            fd = memory(f"mooring-{name}")
            with open(path, "rb") as source:
                os.write(fd, source.read())
            changes[name] = f"/proc/self/fd/{fd}"
    return dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, **changes))


def preload(assignment: Assignment) -> Application:
    """For a template: what a worker does until its application is imported, and its engine with that."""
    from mooring import instrument, loader, otel, workerlog  # noqa: F401 (the workers' imports: shared)

    _set_up(assignment)
    plan = assignment.plan
    application = loader.load(plan.target, plan.settings.interface)
    workerlog.imported()
    engine = engines.choose(plan.settings.engine, application.interface)
    _check(engine, plan)
    engines.load(engine)
    return application


def _set_up(assignment: Assignment) -> None:
    """Before the application is imported: where log lines go, and that they can be reopened."""
    from mooring import debugger, development, freshcode
    from mooring.workerlog import configure

    level = development.engine_log_level(assignment.plan)
    handler = configure(assignment.log, level, assignment.files)
    signal.signal(signal.SIGUSR1, lambda *_: handler.reopen())
    if assignment.plan.settings.reload:
        freshcode.install()
        development.share_terminal()
    if assignment.plan.settings.debugpy is not None and assignment.seat is not None:
        debugger.listen(assignment.plan.settings.debugpy)


def _serve(assignment: Assignment) -> None:
    plan = assignment.plan
    if assignment.application is None:
        _set_up(assignment)
    loaded: list[Loaded] = []
    drain = Drain()
    desk = _desk(assignment)
    longest = heartbeat.timeout(plan.settings)
    if assignment.seat is not None and assignment.seat.stacks >= 0:
        heartbeat.answer(assignment.seat.stacks)

    def load() -> Application:
        if not loaded:
            loaded.append(_load(assignment, desk, drain))
        return loaded[0].application

    def ready() -> None:
        _ready(assignment, load(), engine, started)
        if desk is None:
            limited = plan.settings.max_worker_memory is not None
            _serves(loaded[0].row(), assignment.log, seats.SAMPLE if limited else seats.LOOK)
            if longest is not None:
                heartbeat.start(loaded[0].row(), heartbeat.every(longest), load().interface)

    engine = plan.settings.engine  # where it is auto, it follows the interface
    if engine != "gunicorn":
        engine = engines.choose(engine, load().interface)
    _check(engine, plan)
    if engine == "gunicorn" and plan.revision == 1 and plan.explained["workers"].origin == "tuned":
        plan = dataclasses.replace(plan, workers=1)  # the others when its report has been fitted
    started = plan.workers if engine == "gunicorn" else 1
    _collect_garbage()
    serving = Serving(
        plan,
        load,
        assignment.sockets,
        ready=ready,
        drain=drain,
        resized=lambda workers: tell(assignment.report, "size", workers=workers),
        desk=desk,
        booted=lambda: _serves(loaded[0].row(), assignment.log),
        gone=lambda pid: tell(assignment.report, "gone", worker=pid),
        metrics=os.environ.get(VARIABLE) if plan.settings.app_metrics else None,
        in_flight=lambda: loaded[0].row().in_flight(time.monotonic()) if loaded else [],
    )
    engines.load(engine).serve(serving)


def _collect_garbage() -> None:
    """From now on; what is there by now stays, and need not be looked at again and again."""
    gc.freeze()
    gc.enable()


def _look(assignment: Assignment) -> None:
    os.environ["OTEL_SDK_DISABLED"] = "true"  # nothing is served: nothing to report
    before = survivors.snapshot()
    application = _load(assignment).application
    if assignment.plan.settings.preload != "off":
        survivors.enforce(survivors.find(before), assignment.plan.settings.preload, assignment.log)
    engine = engines.choose(assignment.plan.engine, application.interface)
    _check(engine, assignment.plan)
    _ready(assignment, application, engine)


def _check(engine: str, plan: Plan) -> None:
    """Let the engine say what it cannot do, before it starts. Raises ConfigurationError."""
    look: Callable[[Plan], None] | None = getattr(engines.load(engine), "check", None)
    if look is not None:
        look(plan)


def _desk(assignment: Assignment) -> Desk | None:
    """For gunicorn's arbiter, whose workers take the seat's rows."""
    seat = assignment.seat
    return Desk(seat) if seat is not None and assignment.plan.settings.engine == "gunicorn" else None


def _load(assignment: Assignment, desk: Desk | None = None, drain: Drain | None = None) -> Loaded:
    from mooring import instrument, loader, otel, workerlog

    plan = assignment.plan
    traced = otel.start(plan, assignment.log, assignment.files)
    application = assignment.application
    if application is None:
        application = loader.load(
            plan.target, plan.settings.interface
        )  # not the plan's: a roll may change it
        workerlog.imported()
    if plan.settings.engine == "gunicorn":
        _collect_garbage()  # in gunicorn's worker; others do it when their engine is imported too
    inner = traced(application)

    def wrap() -> Loaded:
        meter = _meter(assignment, desk, drain or Drain())
        call = instrument.wrap(_limited(inner, plan, meter.row), plan, meter)
        return Loaded(application._replace(call=call), lambda: meter.row)

    if desk is not None and desk.arbiter == os.getpid():
        return _preloaded(wrap, desk)
    return wrap()


def _limited(application: Application, plan: Plan, row: Row) -> Application:
    """The application, where the settings limit its requests with that limit."""
    most, seconds = plan.settings.max_in_flight, plan.settings.request_timeout
    if not (most or seconds):
        return application
    from mooring.limits import limit

    return application._replace(call=limit(application.call, application.interface, row, most, seconds))


def _preloaded(wrap: Callable[[], Loaded], desk: Desk) -> Loaded:
    """With gunicorn's `preload_app` the application is there before the fork: each worker wraps it anew."""
    now = wrap()
    calls, rows = [now.application.call], [now.row()]

    def forked() -> None:
        if os.getppid() == desk.arbiter and desk.index is not None:
            again = wrap()
            calls[0], rows[0] = again.application.call, again.row()

    def call(*given: Any) -> Any:
        return calls[0](*given)

    os.register_at_fork(after_in_child=forked)
    return Loaded(now.application._replace(call=call), lambda: rows[0])


def _meter(assignment: Assignment, desk: Desk | None, drain: Drain) -> Meter:
    """What the instrumentation writes to: the row and the ring of this process."""
    from mooring.meter import Lines, Meter
    from mooring.scoreboard import Row

    seat, settings = assignment.seat, assignment.plan.settings
    if seat is None:
        return Meter(Row(), drain=drain)
    index = desk.index if desk is not None else next(iter(seat.rows), None)
    taken = seats.take(seat, index)
    drain.on_begin(lambda: seats.draining(taken.row))
    if taken.write is None:
        return Meter(taken.row, drain=drain)
    from mooring import accessrules
    from mooring.accessline import formatter

    rules = accessrules.parse(settings.access_log_skip, settings.access_log_sample)
    form = formatter(settings.access_log_format or assignment.plan.profile.access_format)
    unix = any(address.kind != "tcp" for address in assignment.plan.binds)
    wanted = rules.wanted if rules is not None else None
    return Meter(taken.row, Lines(form, taken.write, wanted, "unix" if unix else "-"), drain)


def _serves(row: Row, log: Log, look: float = seats.LOOK) -> None:
    """Note that the process serves; what it has, and lacks, is looked at from now on."""
    seats.ready(row, look)
    exhaustion.watch(log)


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
