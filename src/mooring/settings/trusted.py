"""The peers whose X-Forwarded-* headers are believed. Not what those headers change (instrument/proxy.py)."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable

from mooring.logs.escape import ADDRESS

_HOPS = 256  # no chain of proxies is so long
_FIRST = re.compile(r"[\s,]*([^,]*)")
_UNIX = ("unix", "unix:")  # nginx names a client on a unix socket "unix:"


class Trusted:
    """The peers whose headers are believed. `believes(host)` says whether a host is one; it has a cache."""

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
        """The client's host and port (0 if not given) from X-Forwarded-For; None if they are not usable.

        The client is the rightmost hop that is not trusted; if all are trusted, the leftmost, as in uvicorn.
        No more than _HOPS are looked at: a list of more that are all trusted is not usable.
        """
        if self.everyone:
            found = _FIRST.match(forwarded_for)
            first = found[1].rstrip() if found else ""
        else:
            first = ""
            hops = forwarded_for.rsplit(",", _HOPS)
            if len(hops) > _HOPS:
                hops[0] = ""
            for each in reversed(hops):
                hop = each.strip()
                if not hop:
                    continue
                first = hop
                if self.unix and hop in _UNIX:
                    continue
                host, port = _split(hop)
                if len(host) > 253 or not self.believes(host):
                    return (host, port) if ADDRESS.fullmatch(host) else None
            if len(hops) > _HOPS:
                return None
        host, port = _split(first)
        return (host, port) if first not in _UNIX and ADDRESS.fullmatch(host) else None


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


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address as IPv4 if possible: a listener for both families sees IPv4 peers as ::ffff:10.0.0.1."""
    return getattr(address, "ipv4_mapped", None) or address


def _split(hop: str) -> tuple[str, int]:
    """Host and port of `host:port`, `host`, `IPv6`, `[IPv6]`, `[IPv6]:port`; else the whole text and 0."""
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
