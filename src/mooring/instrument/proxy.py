"""Believe X-Forwarded-For and X-Forwarded-Proto from trusted peers, with one meaning on ASGI and WSGI.

The rules are those of uvicorn's ProxyHeadersMiddleware: the client is the rightmost hop that is not trusted.
Headers from other peers are left unchanged and have no effect. Forwarded (RFC 7239), X-Forwarded-Host and
-Port have no effect from any peer.
"""

from __future__ import annotations

from collections.abc import Callable

from mooring.application.model import Environ, Scope
from mooring.settings.trusted import Trusted

_SECURE = {"http": False, "https": True, "ws": False, "wss": True}


def asgi_proxy(trusted: Trusted, *, unix: bool) -> Callable[[Scope], None]:
    """A function that corrects `client` and `scheme` of an HTTP or WebSocket scope in place.

    `unix`: whether there is a unix listener. If so, a peer without an address is taken for a client on it; if
    not, such a peer is a TCP client that has disconnected already, and is not trusted.
    """
    believes, nameless = trusted.believes, trusted.everyone or (trusted.unix and unix)

    def apply(scope: Scope) -> None:
        client = scope.get("client")
        if not (believes(client[0]) if client and client[0] else nameless):
            return
        hops: list[bytes] = []
        proto: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops.append(value)
            elif name == b"x-forwarded-proto":
                proto = value
        if proto is not None:
            secure = _secure(proto.decode("latin-1"))
            if secure is not None:
                plain = "ws" if scope["type"] == "websocket" else "http"
                scope["scheme"] = f"{plain}s" if secure else plain
        if hops:
            scope["client"] = trusted.client(b",".join(hops).decode("latin-1")) or client

    return apply


def wsgi_proxy(trusted: Trusted, *, unix: bool) -> Callable[[Environ], None]:
    """As `asgi_proxy`, for an environ: REMOTE_ADDR, REMOTE_PORT, wsgi.url_scheme, HTTPS."""
    believes, nameless = trusted.believes, trusted.everyone or (trusted.unix and unix)

    def apply(environ: Environ) -> None:
        peer = environ.get("REMOTE_ADDR")
        if not (believes(peer) if peer else nameless):
            return
        if "HTTP_X_FORWARDED_PROTO" in environ:
            secure = _secure(environ["HTTP_X_FORWARDED_PROTO"])
            if secure is not None:
                environ["wsgi.url_scheme"] = "https" if secure else "http"
                environ["HTTPS"] = "on" if secure else "off"
        if "HTTP_X_FORWARDED_FOR" in environ:
            client = trusted.client(environ["HTTP_X_FORWARDED_FOR"])
            if client is not None:
                environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client[0], str(client[1])

    return apply


def _secure(proto: str) -> bool | None:
    """Whether X-Forwarded-Proto means TLS; None if unknown. In a list, the nearest proxy's value counts."""
    return _SECURE.get(proto.rpartition(",")[2].strip().lower())
