"""From a finished request to its line in the access log, on ASGI.

Not for what a line looks like (logs/access/line.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mooring.instrument.meter import Meter
from mooring.instrument.request_id import AsgiIds
from mooring.logs.access.parts import Entry
from mooring.logs.escape import (
    HOST_LIMIT,
    HOST_OTHERS,
    METHODS,
    host_field,
    kept_agent_field,
    kept_agents,
    kept_hosts,
    kept_targets,
    method_field,
    target_field,
)
from mooring.scoreboard import accelerator
from mooring.scoreboard.row import DROPPED

NO_IDS: AsgiIds = ("-", "-", [])  # no function changes its list

# What is known of a request, in a list: it costs less than an object, or than a closure's cells.
Exchange = list[Any]
EXCHANGE = 11
SEND, SCOPE, PATH, QUERY, BEGAN, BASE, PLACE, IDS, SIZE, OPENING, DONE = range(EXCHANGE)
Entries = Callable[[Exchange, int, float, float], None]  # status, seconds, monotonic time


def agrees() -> bool:
    """Whether there is a C twin with these constants."""
    return accelerator.agrees(
        "asgi_line",
        EXCHANGE=EXCHANGE,
        SEND=SEND,
        SCOPE=SCOPE,
        PATH=PATH,
        QUERY=QUERY,
        BEGAN=BEGAN,
        BASE=BASE,
        PLACE=PLACE,
        IDS=IDS,
        SIZE=SIZE,
        OPENING=OPENING,
        DONE=DONE,
        HOST_LIMIT=HOST_LIMIT,
        HOST_OTHERS=HOST_OTHERS,
    )


def size_of(body: Any) -> int:
    """How many bytes a part of a body has that is not of type `bytes`. Raises TypeError for None or text."""
    return memoryview(body).nbytes


def status_of(status: Any) -> int:
    """The number of a response's status. Raises TypeError or ValueError for any other value."""
    number = int(status)
    if not 0 <= number < 1000:
        raise ValueError(f"{number} is no status")
    return number


def asgi_entries(meter: Meter, *, every: bool = False) -> Entries | None:  # noqa: C901 (written out, for its speed)
    """A function that makes a request's line and gives it to the log; None if there is no log.

    `every`: make a line for every request, since the caller has checked already which requests have one.
    """
    if meter.lines is None:
        return None
    form, wanted, nameless = meter.lines.format, meter.lines.wanted, meter.lines.nameless
    line, wants_headers, declared, full = form.line, form.headers, form.declared, form.full
    write, cells = meter.lines.write, meter.row.cells

    targets, agents, hosts = kept_targets, kept_agents, kept_hosts
    if every:
        wanted = None

    def text_of(exchange: Exchange, status: int, seconds: float) -> str:
        _, scope, path, query, _, _, _, ids, size, opening, _ = exchange
        client = scope.get("client")
        host, port = client if client and client[0] else (nameless, None)
        host = hosts.get(host) or host_field(host)
        if port.__class__ is not int and port is not None:
            port = host_field(port)
        method = scope["method"] if scope["type"] == "http" else None
        if method not in METHODS:
            method = method_field(str(method))
        referer = agent = "-"
        if wants_headers:
            for name, value in scope["headers"]:
                if name == b"user-agent":
                    agent = agents.get(value) or kept_agent_field(value)
                elif name == b"referer":
                    referer = agents.get(value) or kept_agent_field(value)
        if method == "HEAD":
            size = 0
        if declared:
            size = _declared(opening)
        target = path + b"?" + query if query else path
        shown = targets.get(target) or target_field(target)
        extra = (scope, (opening or {}).get("headers") or ()) if full else None
        version = scope["http_version"]
        entry = (
            host,
            port,
            method,
            shown,
            version,
            status,
            size,
            seconds,
            referer,
            agent,
            ids[0],
            ids[1],
            extra,
        )
        return line(entry)

    def entries(exchange: Exchange, status: int, seconds: float, now: float) -> None:
        if wanted is not None and not wanted(exchange[PATH], status):
            return
        try:
            text = text_of(exchange, status, seconds)
        except Exception:  # the scope, or the response's headers, are not as they should be
            try:
                text = line(_plain_entry(exchange, status, seconds))
            except Exception:
                cells[DROPPED] += 1.0
                return
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = text.encode("utf-8", "backslashreplace")
        if not write(data, now):
            cells[DROPPED] += 1.0

    return entries


def _plain_entry(exchange: Exchange, status: int, seconds: float) -> Entry:
    """A request's entry without what the application can have changed: the scope's client and headers."""
    _, scope, path, query, _, _, _, ids, size, _, _ = exchange
    target = target_field(path + b"?" + query if query else path)
    method = scope.get("method")
    method = method if method in METHODS else "-"
    return ("-", None, method, target, "-", status, size, seconds, "-", "-", ids[0], ids[1], ({}, ()))


def _declared(opening: Any) -> int | None:
    """The Content-Length of a response's first message."""
    try:
        for name, value in (opening or {}).get("headers") or ():
            if name.lower() == b"content-length" and value.isdigit():
                return int(value)
    except Exception:  # an invalid header: those after it are not read
        return None
    return None
