"""Access log lines from a text with gunicorn's atoms, `%(h)s %(r)s %(s)s`: see docs/how-to/access-log.md.

The text is parsed once. Values from a client or from the application are escaped. A header that looks secret
is shown as `(hidden)`, even if the text names it; a missing value is `-`. An entry's last item is (scope, the
response's headers) on ASGI, (environ, the response's headers) on WSGI. Not for forms with a name: line.py.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from mooring.errors import ConfigurationError
from mooring.logs.access.parts import SURE, Entry, Format, apache_date, each_second, fitted
from mooring.logs.escape import AGENT_LIMIT, field, latin_field

HIDDEN = "(hidden)"

_SECRET = re.compile(
    r"auth(?!or(?!i[sz]))|cookie|token|secret|passw|credential|session|signature|(?:api|access|private).?key",
    re.IGNORECASE,
)
# CGI's names for the values of a scope.
_IN_SCOPE: dict[str, Callable[[Any], Any]] = {
    "REQUEST_METHOD": lambda scope: scope.get("method"),
    "PATH_INFO": lambda scope: scope.get("path"),
    "SCRIPT_NAME": lambda scope: scope.get("root_path"),
    "QUERY_STRING": lambda scope: scope.get("query_string"),
    "SERVER_PROTOCOL": lambda scope: f"HTTP/{scope.get('http_version', '')}",
    "REMOTE_ADDR": lambda scope: (scope.get("client") or ("",))[0],
    "SERVER_NAME": lambda scope: (scope.get("server") or ("",))[0],
    "WSGI.URL_SCHEME": lambda scope: scope.get("scheme"),
}


def request_header(name: str) -> Callable[[Entry], str]:
    """`%({name}i)s`."""
    raw = name.lower().encode("utf-8", "surrogateescape")
    key = _environ_key(name)
    hidden = _SECRET.search(name) is not None

    def atom(entry: Entry) -> str:
        request = _request(entry)
        given = _scope_header(request, raw) if "headers" in request else request.get(key)
        return _shown(given, hidden=hidden)

    return atom


def response_header(name: str) -> Callable[[Entry], str]:
    """`%({name}o)s`: a header that the application sent; the server adds others, such as date, later."""
    lowered = name.lower()
    raw = lowered.encode("utf-8", "surrogateescape")
    hidden = _SECRET.search(name) is not None

    def atom(entry: Entry) -> str:
        found: Any = None
        for given, value in (entry[12][1] if entry[12] else None) or ():
            if given.lower() == (raw if isinstance(given, bytes) else lowered):
                found = value
        return _shown(found, hidden=hidden)

    return atom


def variable(name: str) -> Callable[[Entry], str]:
    """`%({name}e)s`: a variable of the request's environ, not the process's; on ASGI a value of the scope."""
    wanted = name.upper()
    hidden = _SECRET.search(name) is not None
    header = wanted.removeprefix("HTTP_").replace("_", "-").lower().encode("utf-8", "surrogateescape")

    def atom(entry: Entry) -> str:
        request = _request(entry)
        if "headers" not in request:
            given = request.get(name)
            if given is None:
                given = next((value for key, value in request.items() if key.upper() == wanted), None)
        elif wanted.startswith("HTTP_"):
            given = _scope_header(request, header)
        else:
            given = _IN_SCOPE[wanted](request) if wanted in _IN_SCOPE else None
            if isinstance(given, str):  # a scope's text is not Latin-1, as an environ's is
                given = given.encode("utf-8", "backslashreplace")
        return _shown(given, hidden=hidden)

    return atom


def user(entry: Entry) -> str:
    """`%(u)s`: the user of basic authentication; never the password."""
    request = _request(entry)
    given = (
        _scope_header(request, b"authorization")
        if "headers" in request
        else request.get("HTTP_AUTHORIZATION")
    )
    text = given.decode("latin-1") if isinstance(given, bytes) else given or ""
    scheme_name, _, credentials = text.partition(" ")
    if scheme_name.lower() != "basic":
        return "-"
    try:
        name, colon, _ = base64.b64decode(credentials.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return "-"
    return field(name, AGENT_LIMIT) if name and colon else "-"


def scheme(entry: Entry) -> str:
    """`%(S)s`: http or https, ws or wss on ASGI."""
    request = _request(entry)
    return _shown(request.get("scheme") or request.get("wsgi.url_scheme"))


def _request(entry: Entry) -> Any:
    return entry[12][0] if entry[12] else {}


def _environ_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _scope_header(scope: Any, wanted: bytes) -> bytes | None:
    found = None
    for name, value in scope["headers"]:
        if name == wanted:
            found = value
    return found


def _shown(value: Any, *, hidden: bool = False) -> str:
    if value is None or (isinstance(value, (str, bytes)) and not value):
        return "-"
    if hidden:
        return HIDDEN
    if isinstance(value, bytes):
        return field(value, AGENT_LIMIT)
    if isinstance(value, (str, int, float)):
        return latin_field(str(value), AGENT_LIMIT)
    return "-"  # an object that the server has put there


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


def atoms_of(entry: Entry) -> dict[str, Any]:
    """All atoms of an entry that need no name of a header or variable."""
    found = {name: atom(entry) for name, atom in (*_PLAIN.items(), *_FULL.items())}
    return {**found, "t": apache_date(time.localtime())}


def compiled(text: str) -> Format:
    """The form that `text` describes. Raises ConfigurationError for an unknown atom."""
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
