"""Believe X-Forwarded-For and X-Forwarded-Proto from trusted peers, with one meaning on ASGI and WSGI.

The rules are those of uvicorn's ProxyHeadersMiddleware: the client is the rightmost hop that is not trusted.
The headers of other peers are left as they came. Forwarded (RFC 7239), X-Forwarded-Host and -Port change
nothing.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

# What may become a client's address: also names and the obfuscated forms of RFC 7239; nothing to be escaped.
_USABLE = re.compile(r"[0-9A-Za-z._:%-]{1,253}")
_SECURE = {"http": False, "https": True, "ws": False, "wss": True}
_UNIX = ("unix", "unix:")  # nginx names a client on a unix socket "unix:"


class Trusted:
    """The peers whose headers are believed. `believes(host)` tells of one; its answers are cached."""

    def __init__(
        self,
        addresses: frozenset[ipaddress.IPv4Address | ipaddress.IPv6Address],
        networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...],
        *,
        unix: bool = False,
        everyone: bool = False,
    ) -> None:
        self.unix = unix or everyone
        self.everyone = everyone
        self._addresses = addresses
        self._networks = networks
        self.believes: Callable[[str], bool] = functools.lru_cache(maxsize=4096)(self._believes)

    def _believes(self, host: str) -> bool:
        if self.everyone:
            return True
        try:
            address = _plain(ipaddress.ip_address(host))
        except ValueError:
            return False
        return address in self._addresses or any(address in network for network in self._networks)

    def client(self, forwarded_for: str) -> tuple[str, int] | None:
        """The client that X-Forwarded-For names, port 0 where it has none; None where that is not usable.

        All hops trusted: the leftmost, as in uvicorn.
        """
        hops = [hop for hop in map(str.strip, forwarded_for.split(",")) if hop]
        if not hops:
            return None
        if not self.everyone:
            for hop in reversed(hops):
                if self.unix and hop in _UNIX:
                    continue
                host, port = _split(hop)
                if len(host) > 253 or not self.believes(host):
                    return (host, port) if _USABLE.fullmatch(host) else None
        host, port = _split(hops[0])
        return (host, port) if hops[0] not in _UNIX and _USABLE.fullmatch(host) else None


def parse_trusted(items: Iterable[str]) -> Trusted:
    """The peers of FORWARDED_ALLOW_IPS: addresses, networks, `unix`, `*`. Raises ValueError."""
    addresses, networks, unix, everyone = set(), [], False, False
    for item in items:
        try:
            if item == "*":
                everyone = True
            elif item in _UNIX:
                unix = True
            elif "/" in item:
                networks.append(ipaddress.ip_network(item))
            else:
                addresses.add(_plain(ipaddress.ip_address(item)))
        except ValueError as error:
            expected = "addresses such as 10.0.0.1, networks such as 10.0.0.0/8, unix, or *"
            raise ValueError(f"{expected}, not {item!r} ({error})") from None
    return Trusted(frozenset(addresses), tuple(networks), unix=unix, everyone=everyone)


def asgi_proxy(trusted: Trusted, *, unix: bool) -> Callable[[MutableMapping[str, Any]], None]:
    """A function that corrects `client` and `scheme` of an HTTP or WebSocket scope in place.

    `unix`: whether a peer without an address may be one on a unix socket. Where there is no such listener, it
    is a TCP peer that has gone already, and is not believed.
    """
    believes, nameless = trusted.believes, trusted.everyone or (trusted.unix and unix)

    def apply(scope: MutableMapping[str, Any]) -> None:
        client = scope.get("client")
        if not (believes(client[0]) if client and client[0] else nameless):
            return
        hops: bytes | None = None
        proto: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops = value if hops is None else hops + b"," + value
            elif name == b"x-forwarded-proto":
                proto = value
        if proto is not None:
            secure = _secure(proto.decode("latin-1"))
            if secure is not None:
                plain = "ws" if scope["type"] == "websocket" else "http"
                scope["scheme"] = f"{plain}s" if secure else plain
        if hops is not None:
            scope["client"] = trusted.client(hops.decode("latin-1")) or client

    return apply


def wsgi_proxy(trusted: Trusted, *, unix: bool) -> Callable[[dict[str, Any]], None]:
    """As `asgi_proxy`, for an environ: REMOTE_ADDR, REMOTE_PORT, wsgi.url_scheme, HTTPS."""
    believes, nameless = trusted.believes, trusted.everyone or (trusted.unix and unix)

    def apply(environ: dict[str, Any]) -> None:
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


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 peer of a listener for both families comes as ::ffff:10.0.0.1."""
    return getattr(address, "ipv4_mapped", None) or address


def _secure(proto: str) -> bool | None:
    """Whether X-Forwarded-Proto means TLS; None: it means nothing. Of a list, what the nearest proxy says."""
    return _SECURE.get(proto.rpartition(",")[2].strip().lower())


def _split(hop: str) -> tuple[str, int]:
    """Host and port of `host:port`, `host`, `IPv6`, `[IPv6]`, `[IPv6]:port`; all else whole, with port 0."""
    if hop.startswith("["):
        host, bracket, rest = hop[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return hop, 0
        return host, _port(rest[1:]) or 0
    host, colon, text = hop.partition(":")
    port = _port(text)
    return (hop, 0) if not colon or port is None else (host, port)


def _port(text: str) -> int | None:
    digits = text.isascii() and text.isdigit() and len(text) <= 5
    return int(text) if digits and int(text) <= 65535 else None
