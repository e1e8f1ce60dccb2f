"""The wrapper around a WSGI application, as asgi.py for ASGI; in C if mooring._accelerator is there.

Not for a response that is not a list: wsgi_response.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import monotonic
from typing import Any

from mooring.application.model import WSGI, Environ, StartResponse
from mooring.instrument import wsgi_line
from mooring.instrument.meter import FAILED, Lines, Meter, lines_agree, on_access_loggers, table
from mooring.instrument.request_id import WsgiIdentifier, WsgiIds
from mooring.instrument.wsgi_line import describer, logger, target_of
from mooring.instrument.wsgi_response import (
    Progress,
    Stream,
    failure_in,
    is_watched_file,
    last_of_connection,
    watch,
    with_headers,
)
from mooring.logs.access.parts import Entry, apache_date
from mooring.logs.escape import METHODS
from mooring.scoreboard import accelerator
from mooring.scoreboard.row import BOUNDS, DURATIONS, HISTOGRAM, OTHER_BASE, RAISED, REQUEST_BASE
from mooring.system.unpatched import native

PrepareEnviron = Callable[[Environ], None]
Arrival = tuple[float, str, int, int]  # when, what was asked for, its METHOD_BASE, its place in flight
Count = Callable[[int, int, float, bool, int], None]
BeginRequest = Callable[[Environ], Arrival]
ReportAnswer = Callable[[Environ, Arrival, str, int, Any, WsgiIds], None]
_NO_IDS: WsgiIds = ("-", "-", [])  # no function changes its list


def wrap_wsgi(
    application: WSGI,
    believe: PrepareEnviron,
    root: str,
    meter: Meter,
    identify: WsgiIdentifier | None = None,
) -> WSGI:
    """`application`, wrapped: `believe` and `root` are applied to each environ, requests counted and logged.

    A request is counted and logged when the application returns a list, or else when its response is closed.
    """
    prepare = _preparation(believe, root)
    accelerated = _accelerated(application, prepare, meter, identify, always=bool(root))
    return accelerated or _wrapped(application, prepare, meter, identify)


def _wrapped(  # noqa: C901
    application: WSGI, prepare: PrepareEnviron, meter: Meter, identify: WsgiIdentifier | None
) -> WSGI:
    """What `wrap_wsgi` returns, in Python."""
    start, report = _recorder(meter)
    drain, progress = meter.drain, Progress(meter.row.cells)

    def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        arrival = start(environ)
        ids = identify(environ) if identify is not None else _NO_IDS
        status, headers, written = "", (), 0

        def started(code: str, fields: Any, exc_info: Any = None) -> Any:
            nonlocal status, headers
            if ids[2]:
                fields = with_headers(fields, ids[2])
            if drain.begun and environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
                fields = last_of_connection(fields)
            status, headers = code, fields
            write = start_response(code, fields, exc_info) if exc_info else start_response(code, fields)
            if write is None:  # granian and hypercorn have no write()
                return None

            def counted(data: bytes) -> Any:
                nonlocal written
                written += len(data)
                return write(data)

            return counted

        def finish(stream: Stream) -> None:
            code = "" if stream.failed and not written else status
            report(environ, arrival, code, stream.size + written, headers, ids)

        try:
            prepare(environ)
            body = application(environ, started)
            if not isinstance(body, list):
                stream = Stream(body, finish, environ, progress)
                return body if is_watched_file(environ, body, stream, headers) else stream
            size = sum(map(_size, body))
        except BaseException as error:
            failure = failure_in(environ, error)
            report(environ, arrival, "", 0, headers, ids)
            if failure is None:
                raise
            raise failure from error
        report(environ, arrival, status, size + written, headers, ids)
        return body

    return wsgi


def _recorder(meter: Meter) -> tuple[BeginRequest, ReportAnswer]:
    """Two functions: for a new request, and for its response (an empty status: the application failed)."""
    cells, clock, base_of = meter.row.cells, monotonic, REQUEST_BASE.get
    begin, end = table(meter.row)
    count = accelerator.counter(meter.row) or _counter(cells, end)
    entry_of: Callable[..., Entry | None] | None = None
    log: Callable[[Entry, float], object] = _no_log
    if meter.lines is not None:
        entry_of, log = describer(meter.lines), logger(meter, meter.lines)

    def renew(changed: Meter) -> None:
        nonlocal entry_of, log
        if changed.lines is not None:
            entry_of, log = describer(changed.lines), logger(changed, changed.lines)

    on_access_loggers(meter, renew)

    def start(environ: Environ) -> Arrival:
        now = clock()
        target = target_of(environ)
        environ.setdefault("RAW_URI", target)  # as gunicorn gives it
        environ.setdefault("REQUEST_URI", target)  # as uWSGI and mod_wsgi do
        base = base_of(environ["REQUEST_METHOD"], OTHER_BASE)
        return now, target, base, begin(base, target.partition("?")[0].encode("latin-1", "replace"), now)

    def report(  # noqa: PLR0917
        environ: Environ, arrival: Arrival, status: str, size: int, headers: Any, ids: WsgiIds
    ) -> None:
        began, target, base, place = arrival
        now = clock()
        seconds = now - began
        code = _code(status)
        count(base, code, seconds, not status, place)
        if entry_of is not None:
            entry = entry_of(environ, target, code, size, headers, seconds, ids)
            if entry is not None:
                log(entry, now)

    return start, report


def agrees() -> bool:
    """Whether there is a C twin with these constants."""
    return accelerator.agrees("wsgi", FAILED=FAILED, ID_COUNT=len(_NO_IDS))


def _accelerated(
    application: WSGI, prepare: PrepareEnviron, meter: Meter, identify: WsgiIdentifier | None, *, always: bool
) -> WSGI | None:
    """What `wrap_wsgi` returns, in C; None without the accelerator.

    `always`: call `prepare` for all requests, not only for those with a proxy's headers.
    """
    if not (agrees() and wsgi_line.agrees() and lines_agree()):
        return None
    lines = meter.lines
    row = accelerator.row(meter.row, lines.write if lines is not None else None)
    if row is None:
        return None
    timed = lines.format.timed if lines is not None else None
    made = accelerator.c.Wsgi(
        row=row,
        application=application,
        drain=meter.drain,
        identify=identify,
        prepare=prepare,
        always=always,
        bases=REQUEST_BASE,
        other=OTHER_BASE,
        nothing=_NO_IDS,
        target_of=target_of,
        code=_code,
        with_headers=with_headers,
        closing=last_of_connection,
        watch=watch,
        failure=failure_in,
        log=_every_line(meter, lines) if lines is not None else None,
        wanted=lines.wanted if lines is not None else None,
        nameless=lines.nameless if lines is not None else "-",
        methods=METHODS,
        date=accelerator.date(apache_date) if timed is not None else None,
        timed=bool(timed),
    )

    def renew(changed: Meter) -> None:
        if changed.lines is not None:
            made.renew(_every_line(changed, changed.lines))

    on_access_loggers(meter, renew)
    found: WSGI = made
    return found


def _every_line(meter: Meter, lines: Lines) -> Callable[..., None]:
    """A function that logs a request's line; its caller has checked which requests have one."""
    entry_of, log = describer(lines, every=True), logger(meter, lines)

    def line(environ: Environ, target: str, code: int, size: int, *more: Any) -> None:
        headers, seconds, ids, now = more
        entry = entry_of(environ, target, code, size, headers, seconds, ids)
        if entry is not None:
            log(entry, now)

    return line


def _size(part: Any) -> int:
    """How many bytes a part of a body has. Raises TypeError for None or text, as the server would."""
    return len(part) if part.__class__ is bytes else memoryview(part).nbytes


def _counter(cells: memoryview[float], end: Callable[[int], None]) -> Count:
    """A function that counts a request and frees its place."""
    lock = native("_thread", "allocate_lock")()
    bounds, bisect = BOUNDS, bisect_left

    def count(base: int, code: int, seconds: float, failed: bool, place: int) -> None:
        with lock:  # a cell's new value depends on its old one
            cells[base + (code // 100 & 7)] += 1.0
            cells[HISTOGRAM + bisect(bounds, seconds)] += 1.0
            cells[DURATIONS] += seconds
            if failed:
                cells[RAISED] += 1.0
        end(place)

    return count


def _no_log(_entry: Entry, _now: float) -> None:
    pass


def _preparation(believe: PrepareEnviron, root: str) -> PrepareEnviron:
    """A function that changes each environ: proxy headers, root_path as SCRIPT_NAME (PEP 3333's encoding)."""
    script = root.encode().decode("latin-1")
    inside = script + "/"
    if not script:
        return believe

    def prepare(environ: Environ) -> None:
        believe(environ)
        environ["SCRIPT_NAME"] = script
        path = environ.get("PATH_INFO", "")
        if path == script or path.startswith(inside):
            environ["PATH_INFO"] = path[len(script) :]

    return prepare


def _code(status: object) -> int:
    """The number of a status such as `200 OK`; 500 if it has no number, since the server then sends 500."""
    return _number(status) if isinstance(status, str) else FAILED


@lru_cache(maxsize=64)
def _number(status: str) -> int:
    return int(status[:3]) if status[:3].isdecimal() else FAILED
