"""Atoms that look at the whole request or response: headers, variables, the user, the scheme.

An entry's last item is (scope, the response's headers) on ASGI, (environ, the response's headers) on WSGI.
What is missing is `-`; a header that looks secret is shown as `(hidden)`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from mooring.logs.access.parts import Entry
from mooring.logs.escape import AGENT_LIMIT, field, latin_field

HIDDEN = "(hidden)"

_SECRET = re.compile(
    r"auth(?!or(?!i[sz]))|cookie|token|secret|passw|credential|session|signature|(?:api|access|private).?key",
    re.IGNORECASE,
)
# What CGI calls what a scope has.
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
    """`%({name}o)s`: what the application sent; the server's own, such as date, come later."""
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
    """`%({name}e)s`: a variable of the request's environ, not the process's; on ASGI those of a scope."""
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
            if isinstance(given, str):  # not Latin-1, as in an environ
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
    return "-"  # an object of the server's
