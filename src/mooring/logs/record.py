"""One record of mooring's own log: text for people, or one JSON object. Not where it goes (log.py).

Both forms have the same content. The text has the form known from gunicorn and hypercorn:
`[date zone] [pid] [LEVEL] message`, then the fields that the message does not contain, as `name=value`. More
lines of the message and the traceback follow, indented.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Container, Mapping
from itertools import islice
from typing import Any, NamedTuple

from mooring.logs.escape import escape, escape_quoted

_INDENT = "  "  # only a record's first line begins with "[", whatever text an exception has
_UNNAMED = ("mooring", "root")  # text leaves out these names, and the engines': so did the older images
_COLORS = {"debug": "\033[2m", "warning": "\033[33m", "error": "\033[31m", "critical": "\033[1;31m"}
_DIM, _PLAIN = "\033[2m", "\033[0m"
_DEEPEST = 4  # levels of nested values in a field
_MOST, _LONGEST_NAME = 64, 64  # most fields; most characters of a field's name
_LEAST = 16  # least characters that are kept of a field that is cut
_KEPT = ("time", "level", "pid")
_CUT = "\n...\n"


class Record(NamedTuple):
    """One record: `time` in seconds since the epoch; `told`: the fields that `message` contains already."""

    time: float
    pid: int
    level: str
    logger: str
    message: str
    fields: Mapping[str, Any] = {}
    traceback: str = ""
    told: frozenset[str] = frozenset()


def as_text(record: Record, *, colored: bool = False, engines: Container[str] = ()) -> bytes:
    """A record as lines; those after the first are indented, so that none of them looks like a record.

    `engines` are the first parts of the names of the engines' loggers, which the text leaves out.
    """
    first, *rest = record.message.splitlines() or [""]
    root = record.logger.partition(".")[0]
    if root not in _UNNAMED and root not in engines:
        first = f"{record.logger}: {first}"
    said = escape(first)
    for name, value in islice(record.fields.items(), _MOST):
        if name not in record.told:
            said += f" {escape(name)[:_LONGEST_NAME]}={_value(value)}"
    stamp, level = f"[{_local(record.time)}] [{record.pid}]", f"[{record.level.upper()}]"
    if colored:  # the level and the message stay one text: people search for `[INFO] ...`
        color = _COLORS.get(record.level, "")
        line = f"{_DIM}{stamp}{_PLAIN} {color}{level} {said}{_PLAIN if color else ''}\n"
    else:
        line = f"{stamp} {level} {said}\n"
    for more in (*rest, *record.traceback.splitlines()):
        line += f"{_INDENT}{escape(more)}\n"
    return line.encode("utf-8", "backslashreplace")


def as_json(record: Record, limit: int) -> bytes:
    """A record as one line of at most `limit` bytes, plain ASCII; too long values lose their middle."""
    found: dict[str, Any] = {
        "time": _iso(record.time),
        "level": record.level,
        "pid": record.pid,
        "logger": _clean(record.logger),
        "message": _clean(record.message),
    }
    for name, value in islice(record.fields.items(), _MOST):
        name = _clean(name)[:_LONGEST_NAME]  # noqa: PLW2901
        found[f"extra_{name}" if name in found or name == "traceback" else name] = _clean(value)
    if record.traceback:
        found["traceback"] = _clean(record.traceback)
    line = _dumped(found)
    return line if len(line) <= limit else _fitted(found, limit)


def _fitted(found: dict[str, Any], limit: int) -> bytes:
    """Shorten the longest value until the line fits; a value too short to be cut is left out."""
    sizes = {name: len(_dumped(each)) for name, each in found.items() if name not in _KEPT}
    line = _dumped(found)
    while (over := len(line) - limit) > 0:
        name = max(sizes, key=lambda each: sizes[each])
        value, size = found[name], sizes[name]
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > _LEAST:
            # An escaped character is up to twelve bytes, so the share is a guess: it may take some rounds.
            share = len(text) * max(0, size - over - len(_CUT) * 2) // size
            found[name] = _shortened(text, max(_LEAST, min(share, len(text) * 7 // 8)))
            sizes[name] = len(_dumped(found[name]))
        elif name in ("message", "logger"):
            found[name], sizes[name] = "", 0
        else:
            del found[name], sizes[name]
        line = _dumped(found)
    return line


def _shortened(text: str, keep: int) -> str:
    """`keep` characters: a quarter from the start, the rest from the end, where a traceback has its error."""
    head, tail = text[: keep // 4], text[len(text) - keep * 3 // 4 :]
    return f"{head}{_CUT}{tail}" if len(head) + len(tail) + len(_CUT) < len(text) else text[:keep]


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _clean(value: Any, depth: int = 0) -> Any:
    """The value if JSON can hold it, else its text. No infinity, no half of a surrogate pair."""
    try:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 1 << 64 else str(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if depth < _DEEPEST and isinstance(value, Mapping):
            return {_clean(str(name)): _clean(each, depth + 1) for name, each in value.items()}
        if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [_clean(each, depth + 1) for each in value]
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception:  # the application's own __str__
        return f"<{type(value).__name__}>"


def _value(value: Any) -> str:
    """A field's value as text, quoted if it could be read as more than one."""
    value = _clean(value)
    text = value if isinstance(value, str) else json.dumps(value)
    plain = text and text.isprintable() and not any(char in text for char in ' "=\\')
    return text if plain or not isinstance(value, str) else f'"{escape_quoted(text)}"'


def _local(now: float) -> str:
    """Local time as `2026-11-21 05:19:18 +0000`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))


def _iso(now: float) -> str:
    """Local time as ISO 8601 has it: `2026-11-21T05:19:18.025+00:00`."""
    milliseconds = int(now * 1000)
    local = time.localtime(milliseconds // 1000)
    zone = time.strftime("%z", local)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{milliseconds % 1000:03d}{zone[:3]}:{zone[3:]}"
