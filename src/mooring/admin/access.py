"""Who may read the admin endpoint on MOORING_ADMIN_BIND: by the request's host, and by a token.

A page in a browser reaches any address that the browser reaches, under a name of its own (DNS rebinding). It
cannot choose the Host field that the browser sends: so a name that is not this endpoint's is refused.
"""

from __future__ import annotations

import binascii
import socket
from collections.abc import Iterable

from mooring.admin.answers import Answer, Request

_CHALLENGE = ('www-authenticate: Bearer realm="mooring", Basic realm="mooring"',)


class Access:
    """`hosts`: the names by which pages are read, besides addresses and localhost; `token`: or None."""

    def __init__(self, hosts: Iterable[str] = (), token: str | None = None) -> None:
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}
        self._token = None if token is None else token.encode()

    def refuse(self, request: Request, *, any_host: bool) -> Answer | None:
        """The refusal of a request, or None where it may be answered."""
        if not (any_host or self._knows(request.host)):
            return Answer(421, f"{_shown(request.host)} is no name of this endpoint; see MOORING_ADMIN_HOSTS")
        if self._token is not None and not self._matches(request.authorization):
            return Answer(401, "a token is needed: MOORING_ADMIN_TOKEN", headers=_CHALLENGE)
        return None

    def _knows(self, host: str) -> bool:
        """Whether a Host field is empty (HTTP/1.0, which no browser sends), an address, or a known name."""
        if host.startswith("["):
            address, bracket, port = host[1:].partition("]")
            return bool(bracket) and port[:1] in ("", ":") and _is_address(socket.AF_INET6, address)
        name = host.partition(":")[0].lower().rstrip(".")
        return not host or name in self._hosts or _is_address(socket.AF_INET, name)

    def _matches(self, authorization: str) -> bool:
        """Whether the field holds the token: as Bearer, or as the password of Basic, for browsers."""
        import hmac  # only where there is a token: it loads OpenSSL's hashes

        kind, _, given = authorization.partition(" ")
        found = given.strip(" \t").encode("latin-1", "replace")
        if kind.lower() == "basic":
            try:
                found = binascii.a2b_base64(found).partition(b":")[2]
            except ValueError:
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(found, self._token or b"")


def _is_address(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):  # ValueError: a NUL in it
        return False
    return True


def _shown(host: str) -> str:
    """A host for an error's text: what a client sends is shown in ASCII, and not without end."""
    return ascii(host[:100])
