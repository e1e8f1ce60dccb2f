"""Addresses to listen on, and how BIND's text becomes one. Not for opening listeners (listeners.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AddressKind = Literal["tcp", "unix", "fd", "systemd"]

EXPECTED = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd://N or systemd, several separated by commas"


@dataclass(frozen=True, slots=True)
class Address:
    """One address to listen on.

    `host` and `port` are set for tcp (host "" means all IPv4 addresses, port 0 lets the kernel choose),
    `path` for unix, `fd` for an inherited descriptor; systemd means every socket handed over by LISTEN_FDS.
    """

    kind: AddressKind
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        if self.kind == "tcp":
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{host}:{self.port}"
        if self.kind == "unix":
            return f"unix:{self.path}"
        return "systemd" if self.kind == "systemd" else f"fd://{self.fd}"


def parse_port(text: str) -> int:
    """A port number 0 to 65535. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise ValueError("a port from 0 to 65535")
    return int(text)


def parse_host(text: str) -> str:
    """A host name or address; an IPv6 address may be in brackets, as in a URL. Raises ValueError."""
    if any(c.isspace() or c in "/,\"'" for c in text):
        raise ValueError("a host name or an address of this machine")
    inner = text.removeprefix("[").removesuffix("]")
    return inner if text == f"[{inner}]" else text


def parse_address(text: str) -> Address:
    """One address in any of the forms of EXPECTED. Raises ValueError that says what was expected."""
    text = text.strip()
    if text == "systemd":
        return Address("systemd")
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not (number.isascii() and number.isdigit()):
            raise ValueError("fd://N with a descriptor number")
        return Address("fd", fd=int(number))
    if text.startswith(("unix:", "/", "./")):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path:
            raise ValueError("unix:PATH with a path")
        return Address("unix", path=path)
    host, colon, port = text.rpartition(":")
    if not colon or "://" in text:
        raise ValueError(EXPECTED)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "[" in host or "]" in host:
        raise ValueError("an IPv6 address in brackets: [::1]:8000")
    if any(c.isspace() or c == "/" for c in host):
        raise ValueError(EXPECTED)
    return Address("tcp", host=host, port=parse_port(port))


def parse_bind(text: str) -> tuple[Address, ...]:
    """A comma-separated list of addresses, at least one. Raises ValueError that says what was expected."""
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(EXPECTED)
    return tuple(parse_address(part) for part in parts)
