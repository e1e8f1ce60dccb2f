"""The clients' connections of this process, as the kernel reports them: for any engine, without its help.

A connection is a socket among this process's descriptors whose own address is a listener's. How long a TCP
connection has been silent is in its tcp_info: tcp(7), linux/tcp.h. `Connections` reads the engine's own
descriptors and duplicates none: a duplicate that is open after the engine's close would delay the FIN.
"""

from __future__ import annotations

import _socket  # gevent replaces the class in the module socket
import array
import contextlib
import fcntl
import math
import os
import struct
import termios
from collections.abc import Iterable, Iterator, Mapping
from socket import socket
from types import MappingProxyType
from typing import Any, NamedTuple

from mooring.system.process import descriptors

# tcp_info: the state in the first byte; last_data_sent, last_ack_sent and last_data_recv in ms
_TIMES = struct.Struct("=B43xIII")
_ESTABLISHED = 1
_BYTES = struct.Struct("=120xQQ")  # tcp_info: bytes_acked and bytes_received


class Bytes(NamedTuple):
    """How far a connection is, in each direction: a number that changes when bytes pass."""

    sent: int
    received: int


_NUMBERS = struct.Struct("=B23xI16xI4xI64xQQ8xI")  # tcp_info: as above; unacked, and notsent_bytes
_CLOSE_WAIT = 8
_FIRST = 1  # what bytes_acked may be before anything was sent: the handshake's
_SO_PEEK_OFF, _TOP = 42, 2**31 - 1  # socket(7)
Peer = tuple[str, int]


class Numbers(NamedTuple):
    """What the kernel tells of a connection; times in seconds.

    `open`: the client has not closed it. `queued`: whether bytes wait that the client has not taken. The
    kernel keeps no times of a unix socket: they are -1. Its `peer` is no host, and the descriptor as port;
    `received` counts from the first look, and `acked` is what waits: it changes as the client takes some.
    `inode` tells it from another one with the same descriptor.
    """

    fd: int
    peer: Peer
    open: bool
    queued: bool
    sent_ago: float
    received_ago: float
    acked: int
    received: int
    inode: int = 0

    @property
    def fresh(self) -> bool:
        """Whether nothing was ever sent to the client."""
        return self.acked <= _FIRST and not self.queued

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket's."""
        return not self.peer[0]


Traffic = dict[tuple[int, Any], Bytes]  # of each connection, by its descriptor and the client's address


class Connections:
    """The connections to the given listeners; each call reads them anew."""

    def __init__(self, names: Iterable[Any]) -> None:
        """`names`: the listeners' own addresses; by the time of a drain they may be closed."""
        self._ports: set[int] = set()
        self._paths: set[Any] = set()
        for name in names:
            if isinstance(name, tuple):
                self._ports.add(name[1])
            else:
                self._paths.add(name)

    def silences(self) -> list[float | None]:
        """For each connection, seconds since data was last sent or received; None if unknown (unix sockets).

        0 if data waits to be read, however long it waits: on a busy machine the engine may not have read it
        yet. Connections that the client has closed are left out.
        """
        found = [(fd, silence) for fd, _, silence in self._each()]
        return [0.0 if unread(fd) else each for fd, each in found if each is None or each >= 0]

    def peers(self) -> dict[tuple[str, int] | None, int]:
        """The descriptor of each TCP connection, by the client's address and port."""
        return {(name[0], name[1]): fd for fd, name, silence in self._each() if silence is not None}

    def traffic(self) -> Traffic:
        """How far each connection is. Of a unix socket: what waits in its queues."""
        return {
            (fd, name): _waiting(fd) if silence is None else passed(fd) for fd, name, silence in self._each()
        }

    def numbers(self, known: Mapping[int, Any] = MappingProxyType({})) -> Iterator[Numbers]:
        """Each connection's numbers; none where the kernel does not tell.

        `known`: objects with the `peer` of connections of a call before, by descriptor. Python then need not
        ask what kind of socket it is, nor whose listener's.
        """
        for number in descriptors():
            before = known.get(number)
            try:
                if before is None:
                    sock = _socket.socket(fileno=number)
                else:
                    sock = _socket.socket(_kind(before.peer), _socket.SOCK_STREAM, 0, number)
            except OSError:
                continue
            try:
                name = sock.getpeername()
                peer = _peer(name, number)
                is_known = before is not None and before.peer == peer and peer[0]
                if not is_known and not (sock.type == _socket.SOCK_STREAM and self._is_ours(sock)):
                    continue
                found = _of_unix(sock, peer) if isinstance(name, (str, bytes)) else _of_tcp(sock, peer)
                if found is not None:
                    yield found
            except (OSError, struct.error):
                continue
            finally:
                sock.detach()

    def _each(self) -> Iterator[tuple[int, Any, float | None]]:
        for number in descriptors():
            with contextlib.suppress(OSError):  # closed meanwhile, or not a socket
                sock = _socket.socket(fileno=number)
                try:
                    # getpeername() raises for a listener, and for a socket whose client is gone
                    found = (number, sock.getpeername(), silence_of(sock)) if self._is_ours(sock) else None
                finally:
                    sock.detach()
                if found is not None:
                    yield found

    def _is_ours(self, sock: Any) -> bool:
        name = sock.getsockname()
        if isinstance(name, tuple):
            if len(name) < 2 or name[1] not in self._ports:  # netlink addresses are tuples too
                return False
        else:
            return name in self._paths
        return True


def _kind(peer: Peer) -> int:
    if not peer[0]:
        return int(_socket.AF_UNIX)
    return int(_socket.AF_INET6 if ":" in peer[0] else _socket.AF_INET)


def _peer(name: Any, fd: int) -> Peer:
    if not isinstance(name, tuple):
        return "", fd
    host = name[0]
    return (host.partition("%")[0] if "%" in host else host), name[1]  # without the zone of a link's address


def _of_tcp(sock: Any, peer: Peer) -> Numbers | None:
    state, unacked, sent, received, acked, size, unsent = _NUMBERS.unpack(
        sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _NUMBERS.size)
    )
    if state not in (_ESTABLISHED, _CLOSE_WAIT):
        return None
    queued = bool(unacked or unsent)
    opened = state == _ESTABLISHED
    return Numbers(sock.fileno(), peer, opened, queued, sent / 1000, received / 1000, acked, size)


def _of_unix(sock: Any, peer: Peer) -> Numbers:
    """The numbers of a unix socket.

    The kernel counts none of its bytes. But the offset at which MSG_PEEK reads, if it is set, falls with each
    byte that is read (socket(7)); no engine peeks.
    """
    fd = sock.fileno()
    left = sock.getsockopt(_socket.SOL_SOCKET, _SO_PEEK_OFF)
    if left < _TOP // 2:  # not set yet, or used up
        sock.setsockopt(_socket.SOL_SOCKET, _SO_PEEK_OFF, _TOP)
        left = _TOP
    waiting = _waiting(fd).sent
    return Numbers(fd, peer, True, waiting > 0, -1.0, -1.0, waiting, _TOP - left, os.fstat(fd).st_ino)


def borrow(fd: int, peer: tuple[str, int] | None) -> socket | None:
    """A duplicate of the connection at `fd` if it is still this client's, else None. Close it soon."""
    with contextlib.suppress(OSError):
        sock = socket(fileno=os.dup(fd))
        with contextlib.suppress(OSError):
            if sock.getpeername()[:2] == peer:
                return sock
        sock.close()
    return None


def is_open(fd: int, peer: tuple[str, int]) -> bool:
    """Whether the connection at `fd` is still this client's: neither reset nor closed."""
    with contextlib.suppress(OSError):
        sock = _socket.socket(fileno=fd)
        try:
            return bool(sock.getpeername()[:2] == peer)
        finally:
            sock.detach()
    return False


def unread(fd: int, most: int = 0) -> bool:
    """Whether a connection's client has sent data, more than `most` bytes, that the engine has not read."""
    waiting = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
    except (OSError, ValueError):
        return False  # closed already
    return waiting[0] > most


def passed(fd: int) -> Bytes:
    """Bytes that a client has acknowledged and sent; zeros where the kernel does not tell.

    Of a unix socket's client, what was read of it since a call of `numbers`.
    """
    sock = _socket.socket(fileno=fd)
    try:
        if sock.family == _socket.AF_UNIX:
            left = sock.getsockopt(_socket.SOL_SOCKET, _SO_PEEK_OFF)
            return Bytes(0, _TOP - left if left >= 0 else 0)
        return Bytes(*_BYTES.unpack(sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _BYTES.size)))
    except (OSError, struct.error):
        return Bytes(0, 0)
    finally:
        sock.detach()


def _waiting(fd: int) -> Bytes:
    found = []
    for request in (termios.TIOCOUTQ, termios.FIONREAD):
        waiting = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, request, waiting)
        found.append(waiting[0])
    return Bytes(*found)


def sent_ago(fd: int) -> float:
    """Seconds since data was last sent, or since the connection was made; no number where it is not known."""
    sock = _socket.socket(fileno=fd)
    try:
        return float(
            _TIMES.unpack(sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TIMES.size))[1] / 1000
        )
    except (OSError, struct.error):
        return math.nan
    finally:
        sock.detach()


def silence_of(sock: Any) -> float | None:
    """Seconds since data was sent or received; None for a unix socket, -1 if the connection is not open."""
    if sock.family == _socket.AF_UNIX:
        return None
    state, sent, _, received = _TIMES.unpack(
        sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TIMES.size)
    )
    return min(sent, received) / 1000 if state == _ESTABLISHED else -1.0
