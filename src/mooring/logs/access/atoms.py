"""Access log lines by a text with gunicorn's atoms, `%(h)s %(r)s %(s)s`: docs/how-to/access-log.md has them.

The text is taken apart once. All that a client or the application supplies is escaped; headers that look
secret are hidden even where they are asked for. Not for the forms that have a name: line.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from mooring.errors import ConfigurationError
from mooring.logs.access.headers import request_header, response_header, scheme, user, variable
from mooring.logs.access.parts import SURE, Entry, Format, apache_date, each_second, fitted

Atom = Callable[[Entry], Any]

_ATOM = re.compile(
    r"%(?:(?P<percent>%)|\((?P<name>\{[^{}]*\}[ioe]|[^(){}]*)\)(?P<layout>-?0?[0-9]{0,3})(?P<as>[sd]))"
)
_REASONS = {status.value: status.phrase for status in HTTPStatus}

_PLAIN: dict[str, Atom] = {
    "h": lambda entry: entry[0],
    "l": lambda entry: "-",
    "r": lambda entry: f"{entry[2] or 'GET'} {entry[3]} HTTP/{entry[4]}",
    "R": lambda entry: f"{entry[2] or 'GET'} {entry[3]} HTTP/{entry[4]}",
    "s": lambda entry: entry[5],
    "st": lambda entry: _REASONS.get(entry[5], "-"),
    "m": lambda entry: entry[2] or "GET",
    "U": lambda entry: entry[3].partition("?")[0],
    "Uq": lambda entry: entry[3],
    "q": lambda entry: entry[3].partition("?")[2],
    "qs": lambda entry: entry[3].partition("?")[2],
    "H": lambda entry: f"HTTP/{entry[4]}",
    "b": lambda entry: "-" if entry[6] is None else entry[6],
    "B": lambda entry: "-" if entry[6] is None else entry[6],
    "f": lambda entry: entry[8],
    "a": lambda entry: entry[9],
    "T": lambda entry: int(entry[7]),
    "D": lambda entry: int(entry[7] * 1000000),
    "M": lambda entry: int(entry[7] * 1000),
    "L": lambda entry: f"{entry[7]:.6f}",
    "p": lambda entry: f"<{os.getpid()}>",
    "rid": lambda entry: entry[10],
    "tid": lambda entry: entry[11],
}
_FULL: dict[str, Atom] = {"u": user, "S": scheme}
_NUMBERS = frozenset("sTDM")
_NAMES = ("h", "l", "u", "t", *(name for name in _PLAIN if name not in "hl"), "S")
EXPECTED = (
    f"%(ATOM)s with {' '.join(_NAMES)}, {{HEADER}}i, {{HEADER}}o or {{VARIABLE}}e for ATOM, and %% for a %"
)


def compiled(text: str) -> Format:
    """The form that `text` describes. Raises ConfigurationError for an atom that is none."""
    atoms: list[Atom] = []
    names: set[str] = set()
    pieces, end = [], 0
    for found in _ATOM.finditer(text):
        pieces.append(_literal(text, text[end : found.start()]))
        end = found.end()
        if found["percent"]:
            pieces.append("%%")
            continue
        name = found["name"]
        if found["as"] == "d" and name not in _NUMBERS:
            raise _error(text, f"%({name})d: a number is only in {', '.join(sorted(_NUMBERS))}")
        atoms.append(_atom(text, name))
        names.add(name)
        pieces.append(f"%{found['layout']}{found['as']}")
    pieces.append(_literal(text, text[end:]))
    full = any(name in _FULL or name.startswith("{") for name in names)
    line = _line("".join(pieces) + "\n", tuple(atoms))
    ids = any(name == "rid" or name.lower().startswith("{x-request-id}") for name in names)
    return Format(line, headers=bool(names & {"f", "a"}), full=full, ids=ids)


def _line(template: str, atoms: tuple[Atom, ...]) -> Callable[[Entry], str]:
    def line(entry: Entry) -> str:
        text = template % tuple([atom(entry) for atom in atoms])
        return text if len(text) <= SURE else fitted(text, line, entry)

    return line


def _literal(text: str, piece: str) -> str:
    if "%" in piece:
        at = piece[piece.index("%") :][:20]
        raise _error(text, f"{at!r} is no atom")
    if not piece.replace("\t", "").isprintable():
        raise _error(text, "a line has no control characters but the tab")
    return piece


def _atom(text: str, name: str) -> Atom:
    if name == "t":
        date = each_second(apache_date)
        return lambda entry: date()
    if name.startswith("{"):
        make = {"i": request_header, "o": response_header, "e": variable}[name[-1]]
        return make(name[1:-2])
    atom = _PLAIN.get(name) or _FULL.get(name)
    if atom is None:
        raise _error(text, f"%({name})s is no atom")
    return atom


def _error(text: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"access_log_format: {text!r}: expected {EXPECTED}; {problem}")
