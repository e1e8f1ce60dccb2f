"""Records of `logging` for finished requests, each as one server makes them for its access log.

A filter looks into a record's `args`, so these are the server's. Not for where records go: loggers.py.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Literal

from mooring.logs.access.atoms import atoms_of, request_header, response_header
from mooring.logs.access.parts import Entry
from mooring.logs.escape import escape_quoted

# `call`: client, method, path and query, HTTP version, status; `atoms`: Apache's atoms; `fields`: words.
Shape = Literal["call", "atoms", "fields"]

_FORMATS: dict[Shape, str] = {
    "call": '%s - "%s %s HTTP/%s" %d',
    "atoms": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    "fields": '[%(time)s] %(addr)s - "%(method)s %(path)s %(protocol)s" %(status)d %(dt_ms).3f',
}
# A client and a target in the text of any of the three.
_PARTS = re.compile(r'(?:\[[^\]]*\] )?(\S+) .*?"\S+ (.*?) HTTP/', re.DOTALL)


def record_of(logger: logging.Logger, shape: Shape, entry: Entry) -> logging.LogRecord | None:
    """A request's record. None: this server logs it elsewhere, which is so for some WebSockets."""
    args: Any
    if shape == "call":
        if entry[2] is None:
            return None
        args = (_client(entry), entry[2], entry[3], entry[4], entry[5])
    else:
        args = (_atoms(entry) if shape == "atoms" else _fields(entry),)
    return logger.makeRecord(logger.name, logging.INFO, "(access log)", 0, _FORMATS[shape], args, None)


def changed(entry: Entry, shape: Shape, made: Any, record: logging.LogRecord) -> Entry:
    """The entry after a filter, which may have changed the record: its client, target and headers.

    `made` is a copy of the record's arguments as they were.
    """
    if record.msg is _FORMATS[shape] and record.args == made:
        return entry
    after = record.getMessage()
    old, new = _PARTS.match(_FORMATS[shape] % made), _PARTS.match(after)
    host, target = entry[0], "-"
    if old is not None and new is not None:
        target = entry[3] if old[2] == new[2] else _clean(new[2])
        if old[1] != new[1]:
            host = _clean(new[1].removesuffix(f":{entry[1]}"))
        if shape == "fields" and isinstance(record.args, dict):
            query = str(record.args.get("query_string") or "")
            target = f"{target.partition('?')[0]}?{_clean(query)}" if query else target
    referer, agent = entry[8], entry[9]
    if shape == "atoms":
        referer, agent = (_left(name, each, after, record) for name, each in (("f", referer), ("a", agent)))
    return (*(host, *entry[1:3], target, *entry[4:8]), referer, agent, *entry[10:])


def _left(name: str, value: str, text: str, record: logging.LogRecord) -> str:
    """What a filter has left of an atom."""
    if isinstance(record.args, dict):
        now = record.args.get(name, "-")
        return value if now == value else _clean(str(now))
    return value if value in text else "-"


def _clean(text: str) -> str:
    return text if text.isprintable() and '"' not in text else escape_quoted(text)


def _client(entry: Entry) -> str:
    return entry[0] if entry[1] is None else f"{entry[0]}:{entry[1]}"


def _fields(entry: Entry) -> dict[str, Any]:
    path, _, query = entry[3].partition("?")
    return {
        "addr": entry[0],
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "dt_ms": entry[7] * 1000,
        "status": entry[5],
        "path": path,
        "query_string": query,
        "method": entry[2] or "GET",
        "scheme": atoms_of(entry)["S"],
        "protocol": f"HTTP/{entry[4]}",
    }


class _Atoms(dict[str, Any]):
    """Apache's atoms of a request; those of headers are looked up when they are asked for."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(atoms_of(entry))
        self._entry = entry

    def __missing__(self, name: str) -> Any:
        if name.startswith("{") and name[-2:] in ("}i", "}o"):
            make = request_header if name.endswith("i") else response_header
            return make(name[1:-2])(self._entry)
        return "-"


def _atoms(entry: Entry) -> dict[str, Any]:
    return _Atoms(entry)
