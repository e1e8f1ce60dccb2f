"""Listeners: bind or inherit the sockets that every generation of workers serves (TCP, unix, fd://, systemd).

Not for parsing addresses (address.py), and not for accepting connections: the engines do that. Each socket is
listening, close-on-exec, and non-blocking: many processes wait on it, and a process that finds no connection
left must not hang in accept().
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mooring.errors import BindError
from mooring.system.address import Address
from mooring.system.sockets import UNIX_PATH_MAX, port_owner, remove_stale, who

# sd_listen_fds(3). They are for this process only: workers get an environment without them.
ACTIVATION_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
FIRST_ACTIVATION_FD = 3

_PORT_ZERO_ATTEMPTS = 16

SocketAddress = tuple[socket.AddressFamily, tuple[Any, ...]]


@dataclass(slots=True)
class Listener:
    """A bound, listening socket.

    `address` is the address that is really bound (host name resolved, port filled in), `owned_path` the path
    of a unix socket that this process made and removes when it stops, `inode` that file's device and inode.
    `lent`: somebody else has opened it, and may still hold it.
    """

    address: Address
    socket: socket.socket
    owned_path: str | None = None
    inode: tuple[int, int] | None = None
    lent: bool = False

    def url(self, tls: bool) -> str:
        """The listener as users write it: http://127.0.0.1:8000, https://[::]:443 or unix:/run/app.sock."""
        if self.address.kind != "tcp":
            return str(self.address)
        return f"{'https' if tls else 'http'}://{self.address}"


def open_listeners(
    binds: Sequence[Address], *, backlog: int, unix_mode: int, environ: Mapping[str, str], source: str = ""
) -> list[Listener]:
    """Open every address; a host name may give several listeners, `systemd` as many as were handed over.

    `[::]` accepts IPv4 too, as with uvicorn and gunicorn, unless `binds` has an IPv4 address with the same
    port. Raises BindError after closing the listeners that it has opened; its text ends with `source`, which
    says in words where `binds` come from.
    """
    opened: list[Listener] = []
    try:
        for address in dict.fromkeys(binds):
            for listener in _open(address, binds, backlog, unix_mode, environ):
                opened.append(listener)
                listener.socket.setblocking(False)
                listener.socket.set_inheritable(False)
    except BindError as error:
        close_listeners(opened)
        if not source:
            raise
        raise BindError(f"{error} ({source})") from None
    return opened


def close_listeners(listeners: Sequence[Listener]) -> None:
    """Close the sockets, and remove unix sockets' files if they are still those that this process made."""
    for listener in listeners:
        listener.socket.close()
        if listener.owned_path is None:
            continue
        try:
            if _inode(listener.owned_path) == listener.inode:
                os.unlink(listener.owned_path)
        except OSError:
            pass  # someone else removed it


def _open(
    address: Address, binds: Sequence[Address], backlog: int, unix_mode: int, environ: Mapping[str, str]
) -> Iterator[Listener]:
    if address.kind == "unix":
        yield _open_unix(address, unix_mode, backlog)
    elif address.kind == "fd":
        yield _adopt(address.fd, str(address), backlog)
    elif address.kind == "systemd":
        for fd, name in _handed_over(environ):
            yield _adopt(fd, f"systemd socket {name} (descriptor {fd})", backlog)
    else:
        alone = address.port == 0 or not any(
            other.kind == "tcp" and other.port == address.port and ":" not in other.host for other in binds
        )
        yield from _open_tcp(address, alone, backlog)


def _open_tcp(address: Address, dual: bool, backlog: int) -> list[Listener]:
    """Bind every address that the host name resolves to, all with the same port. Raises BindError."""
    targets = _resolve(address)
    for attempt in range(_PORT_ZERO_ATTEMPTS):
        bound: list[socket.socket] = []
        missing: OSError | None = None
        try:
            for family, sockaddr in targets:
                port = bound[0].getsockname()[1] if bound else address.port
                try:
                    bound.append(_bind_tcp(family, (sockaddr[0], port, *sockaddr[2:]), dual, backlog))
                except OSError as error:
                    # /etc/hosts often names ::1 with IPv6 off: the other addresses suffice, as in asyncio
                    if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    missing = error
            if missing and not bound:
                raise missing
            return [Listener(_bound_address(sock), sock) for sock in bound]
        except OSError as error:
            for sock in bound:
                sock.close()
            chosen_is_taken = bound and address.port == 0 and error.errno == errno.EADDRINUSE
            if not chosen_is_taken or attempt + 1 == _PORT_ZERO_ATTEMPTS:
                raise _refused(address, _why_tcp(error, address)) from None
    raise AssertionError("unreachable")


def _resolve(address: Address) -> list[SocketAddress]:
    try:
        found = socket.getaddrinfo(
            address.host or "0.0.0.0", address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, ValueError):
        reason = f"the host name {address.host!r} cannot be resolved; give an address of this machine"
        raise _refused(address, reason) from None
    return list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))


def _bind_tcp(
    family: socket.AddressFamily, sockaddr: tuple[Any, ...], dual: bool, backlog: int
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            only = not (dual and sockaddr[0] == "::")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(sockaddr)
        sock.listen(backlog)  # with SO_REUSEADDR a port in use may show only here
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(address: Address, mode: int, backlog: int) -> Listener:
    path = address.path
    length = len(os.fsencode(path))
    if length > UNIX_PATH_MAX:
        raise _refused(address, f"the path has {length} bytes, and a unix socket's may have {UNIX_PATH_MAX}")
    if "\0" in path:
        raise _refused(address, "the path has a NUL character")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove_stale(path)
        before = os.umask(0o777 & ~mode)  # so the file never has another mode
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        sock.listen(backlog)
        full = os.path.abspath(path)
        return Listener(Address("unix", path=full), sock, full, _inode(full))
    except OSError as error:
        sock.close()
        raise _refused(address, _why_unix(error, path)) from None


def _handed_over(environ: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The descriptors that systemd's socket activation gives, with their names. Raises BindError."""
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise BindError(
            "cannot listen on systemd: it handed over no socket (LISTEN_FDS); start mooring by a .socket unit"
        )
    if pid != str(os.getpid()):
        raise BindError(
            f"cannot listen on systemd: the sockets are for process {pid or '(LISTEN_PID is not set)'}, "
            f"and this is {os.getpid()}; let the unit start mooring itself, without a shell in between"
        )
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for index in range(int(count)):
        name = names[index] if index < len(names) else ""
        yield FIRST_ACTIVATION_FD + index, name or "unknown"


def _adopt(fd: int, label: str, backlog: int) -> Listener:
    """Take over an inherited descriptor: a bound stream socket, listening or not. Raises BindError."""
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        raise BindError(f"cannot listen on {label}: the descriptor is not open in this process") from None
    if not is_socket:
        raise BindError(f"cannot listen on {label}: the descriptor is no socket")
    sock = socket.socket(fileno=fd)
    reason = _unfit(sock)
    if not reason:
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.listen(backlog)
            return Listener(_bound_address(sock), sock, lent=True)
        except OSError as error:
            reason = str(error.strerror)
    sock.detach()  # not ours to close
    raise BindError(f"cannot listen on {label}: {reason}")


def _unfit(sock: socket.socket) -> str:
    """Why an inherited socket cannot be a listener; empty if it can."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return "it is neither a TCP nor a unix socket"
    if sock.type != socket.SOCK_STREAM:
        return "it is no stream socket"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return ""
    try:
        sock.getpeername()
        return "it is a connection, not a listening socket"
    except OSError:
        name = sock.getsockname()
    return "" if (name if sock.family == socket.AF_UNIX else name[1]) else "it is not bound to an address"


def _bound_address(sock: socket.socket) -> Address:
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return Address("tcp", host=name[0], port=name[1])
    return Address("unix", path=os.fsdecode(name).replace("\0", "@"))


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _refused(address: Address, reason: str) -> BindError:
    return BindError(f"cannot listen on {address}: {reason}")


def _why_unix(error: OSError, path: str) -> str:
    folder = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT:
        return f"the folder {folder} does not exist"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not make or open a socket in {folder}"
    hint = "; stop it, or choose another path" if error.errno == errno.EADDRINUSE else ""
    return f"{error.strerror}{hint}"


def _why_tcp(error: OSError, address: Address) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use{who(port_owner(address.port))}; stop it, or choose another port"
    if error.errno == errno.EACCES:
        return (
            f"this user may not bind port {address.port}; use a port from 1024 up, "
            "or give the capability NET_BIND_SERVICE"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface of this machine has that address"
    if error.errno == errno.EAFNOSUPPORT:
        return "this machine has no IPv6"
    return error.strerror or str(error)
