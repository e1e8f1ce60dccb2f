"""From a request to its line in the access log, on WSGI.

Not for what a line looks like (logs/access/line.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from mooring.application.model import Environ
from mooring.instrument.meter import Lines, Meter, line_writer, lines_agree
from mooring.instrument.request_id import WsgiIds
from mooring.logs.access.parts import Entry, apache_date
from mooring.logs.escape import (
    AGENT_LIMIT,
    HOST_LIMIT,
    HOST_OTHERS,
    METHODS,
    TARGET_LIMIT,
    host_field,
    kept_hosts,
    latin_agent_field,
    latin_field,
    method_field,
)
from mooring.scoreboard import accelerator
from mooring.system.unpatched import native

# A path of these characters alone needs no percent-encoding (RFC 3986: pchar and "/").
_PCHAR = "/!$&'()*+,;=:@"
_encoded = re.compile(rf"[^A-Za-z0-9._~{re.escape(_PCHAR)}-]").search


def agrees() -> bool:
    """Whether there is a C twin with these constants."""
    return accelerator.agrees(
        "wsgi_line",
        TARGET_LIMIT=TARGET_LIMIT,
        AGENT_LIMIT=AGENT_LIMIT,
        PCHAR=_PCHAR,
        HOST_LIMIT=HOST_LIMIT,
        HOST_OTHERS=HOST_OTHERS,
    )


def target_of(environ: Environ) -> str:
    """Path and query as the client requested them. Call it before the environ is changed."""
    raw = environ.get("RAW_URI")
    if raw is not None:
        return str(raw)
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if _encoded(path):
        path = quote(path.encode("latin-1", "replace"), safe=_PCHAR)
    query = environ.get("QUERY_STRING")
    return f"{path}?{query}" if query else path


def describer(lines: Lines, *, every: bool = False) -> Callable[..., Entry | None]:
    """A function that makes a request's entry, or returns None if the request has no line.

    `every`: make an entry for every request, since the caller has checked already which requests have a line.
    """
    form, wanted, nameless = lines.format, lines.wanted if not every else None, lines.nameless
    wants_headers, declared, full, hosts = form.headers, form.declared, form.full, kept_hosts

    def entry(  # noqa: PLR0917
        environ: Environ, target: str, code: int, size: int, headers: Any, seconds: float, ids: WsgiIds
    ) -> Entry | None:
        if wanted is not None and not wanted(target.partition("?")[0], code):
            return None
        host, port = environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")
        if not host:
            host, port = nameless, None
        host = hosts.get(host) or host_field(host)
        if port is not None:
            port = host_field(port)
        method = environ["REQUEST_METHOD"]
        if method not in METHODS:
            method = method_field(method)
        referer = agent = "-"
        if wants_headers:
            if "HTTP_USER_AGENT" in environ:
                agent = latin_agent_field(environ["HTTP_USER_AGENT"][: AGENT_LIMIT + 1])
            if "HTTP_REFERER" in environ:
                referer = latin_agent_field(environ["HTTP_REFERER"][: AGENT_LIMIT + 1])
        shown: int | None = 0 if method == "HEAD" else size
        if declared:
            shown = declared_size(headers)
        extra = (environ, headers) if full else None
        path, version = latin_field(target, TARGET_LIMIT), environ["SERVER_PROTOCOL"][5:]
        return (
            *(host, port, method, path, version),
            *(code, shown, seconds, referer, agent, ids[0], ids[1], extra),
        )

    return entry


def declared_size(headers: Any) -> int | None:
    """The Content-Length among a response's headers."""
    for name, value in headers or ():
        if name.lower() == "content-length" and value.isdecimal():
            return int(value)
    return None


def logger(meter: Meter, lines: Lines) -> Callable[[Entry, float], object]:
    """A function that writes the line of an entry."""
    lock = native("_thread", "allocate_lock")()  # a ring has one writer
    make, put = lines.format.line, line_writer(meter, lines)
    timed = lines.format.timed
    quick: Any = accelerator.apache(meter.row, lines.write, timed, apache_date) if lines_agree() else None

    def log(entry: Entry, now: float) -> None:
        text = make(entry)
        with lock:
            put(text, now)

    def quickly(entry: Entry, now: float) -> None:
        if not quick(entry, now):
            log(entry, now)

    return log if quick is None else quickly
