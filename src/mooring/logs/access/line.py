"""The forms of the access log's lines: those of the older images, and mooring's.

Texts from a client are already escaped here (logs/escape.py). docs/profiles.md tells which profile has which
form. Not for writing the line (scoreboard/ring.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from http import HTTPStatus

from mooring.errors import ConfigurationError
from mooring.logs.access.parts import (
    DIGITS,
    SURE,
    Entry,
    Format,
    Line,
    apache_date,
    each_second,
    fitted,
    log_date,
    number,
    texts,
)

__all__ = ["Entry", "Format", "formatter"]

_REASONS = {status.value: status.phrase for status in HTTPStatus}


def formatter(name: str) -> Format:
    """The form with this name (the table is at the end of this file), or of a text with gunicorn's atoms.

    Raises ConfigurationError for an unknown name or atom.
    """
    if "%(" in name:
        from mooring.logs.access.atoms import compiled

        return compiled(name)
    if name not in _FORMATS:
        raise ConfigurationError(
            f"access_log_format: {name!r}: expected one of {', '.join(NAMES)}, "
            "or a text with gunicorn's atoms, such as %(h)s %(r)s %(s)s"
        )
    return _FORMATS[name]()


def _address(host: str, port: int | str | None) -> str:
    return host if port is None else f"{host}:{port}"


def _apache(*, duration: bool) -> Line:
    """Apache's combined form. It repeats the code of some functions: a call costs 50 ns."""
    clock, text_of, digits, small = time.time, texts.get, DIGITS, len(DIGITS)
    since = until = 0.0
    date = ""

    def new_second(now: float) -> None:
        """Set the date first: then a race with another thread makes it twice, but never wrong."""
        nonlocal date, since, until
        second = int(now)
        date = apache_date(time.localtime(second))
        since, until = float(second), second + 1.0

    def combined(entry: Entry) -> str:
        host, _, method, target, version, status, size, _, referer, agent, _, _, _ = entry
        if not since <= clock() < until:
            new_second(clock())
        text = (
            f'{host} - - {date} "{method or "GET"} {target} HTTP/{version}" '
            f'{text_of(status) or number(status)} {text_of(size) or number(size)} "{referer}" "{agent}"\n'
        )
        return text if len(text) <= SURE else fitted(text, combined, entry)

    def timed(entry: Entry) -> str:
        host, _, method, target, version, status, size, seconds, referer, agent, _, _, _ = entry
        if not since <= clock() < until:
            new_second(clock())
        took = int(seconds * 1000000)
        text = (
            f'{host} - - {date} "{method or "GET"} {target} HTTP/{version}" '
            f"{text_of(status) or number(status)} {text_of(size) or number(size)} "
            f'"{referer}" "{agent}" {digits[took] if took < small else took}us\n'
        )
        return text if len(text) <= SURE else fitted(text, timed, entry)

    return timed if duration else combined


def _common() -> Format:
    """Apache's combined form, then the duration in microseconds."""
    return Format(_apache(duration=True), headers=True, timed=True)


def _combined() -> Format:
    """Apache's combined form, as gunicorn writes it. The user of basic authentication is left out."""
    return Format(_apache(duration=False), headers=True, timed=False)


def _json() -> Format:
    from mooring.logs.access.json_line import line

    return Format(line(), headers=True, ids=True)


def _hypercorn() -> Format:
    """Hypercorn's form: its logging prefix, no query string, no `HTTP/`, the declared size."""
    dates = each_second(lambda now: (log_date(now), apache_date(now)))
    pid, text_of = os.getpid, texts.get

    def line(entry: Entry) -> str:
        host, port, method, target, version, status, size, _, referer, agent, _, _, _ = entry
        logged, date = dates()
        client = host if port is None else f"{host}:{port}"
        path = target.partition("?")[0] if "?" in target else target
        text = (
            f'{logged} [{pid()}] [INFO] {client} - - {date} "{method or "GET"} {path} {version}" '
            f'{text_of(status) or number(status)} {text_of(size) or number(size)} "{referer}" "{agent}"\n'
        )
        return text if len(text) <= SURE else fitted(text, line, entry)

    return Format(line, headers=True, declared=True)


def _uvicorn() -> Format:
    """Uvicorn's form without a prefix, as under gunicorn."""
    text_of = texts.get

    def line(entry: Entry) -> str:
        host, port, method, target, version, status, _, _, _, _, _, _, _ = entry
        if method is None or port is None:
            text = f"{_address(host, port)} - {_outcome(entry)}\n"
        else:
            text = f'{host}:{port} - "{method} {target} HTTP/{version}" {text_of(status) or number(status)}\n'
        return text if len(text) <= SURE else fitted(text, line, entry)

    return Format(line)


def _own_uvicorn() -> Format:
    """The form of uvicorn's own command, with the reason phrase; the older images' form with live reload."""

    def line(entry: Entry) -> str:
        host, port, method, status = entry[0], entry[1], entry[2], entry[5]
        reason = _REASONS.get(status, "") if method is not None else ""
        text = f"INFO:     {_address(host, port)} - {_outcome(entry)} {reason}".rstrip() + "\n"
        return text if len(text) <= SURE else fitted(text, line, entry)

    return Format(line)


def _old_uvicorn() -> Format:
    """The form of uvicorn 0.9, which wrote to gunicorn's error log."""
    prefix = each_second(log_date)

    def line(entry: Entry) -> str:
        host, port = entry[0], entry[1]
        client = host if port is None else f"('{host}', {port})"
        text = f"{prefix()} [{os.getpid()}] [INFO] {client} - {_outcome(entry)}\n"
        return text if len(text) <= SURE else fitted(text, line, entry)

    return Format(line)


def _outcome(entry: Entry) -> str:
    """The request and its status as uvicorn writes them."""
    method, target, version, status = entry[2:6]
    if method is not None:
        return f'"{method} {target} HTTP/{version}" {status}'
    return f'"WebSocket {target}" {"[accepted]" if status == 101 else status}'


_FORMATS: dict[str, Callable[[], Format]] = {
    "common": _common,
    "combined": _combined,
    "json": _json,
    "hypercorn": _hypercorn,
    "uvicorn": _uvicorn,
    "uvicorn-reload": _own_uvicorn,
    "uvicorn-0.9": _old_uvicorn,
}
NAMES = tuple(_FORMATS)
