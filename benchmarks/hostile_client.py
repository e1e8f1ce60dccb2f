"""An attacker's connections: send what an attack says until the server ends it, or a time has passed."""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import sys
import time
from typing import NamedTuple

from h2.errors import ErrorCodes
from hostile_attacks import HANDSHAKE, Attack

_STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})", re.MULTILINE)
_KEPT = 2**16  # bytes of answers that are looked at
# linux/inet_diag.h, linux/sock_diag.h: a question for one TCP socket by its addresses
_DIAG, _BY_FAMILY, _REQUEST, _TCP, _IPV4 = 4, 20, 1, 6, 2
_ASKED = struct.Struct("=IHHII BBBBI HH16s16sI8s")
_STATE, _LISTEN, _INODE = 17, 10, slice(16 + 68, 16 + 72)


class Ending(NamedTuple):
    """What ended an attack, after how many seconds and bytes; `closed`: the connection has ended too.

    `words` is a status, GOAWAY or a WebSocket's close with its code, "closed", "cut", or "": nothing did.
    """

    words: str
    seconds: float
    sent: int
    closed: bool


def attack_once(attack: Attack, port: int, seconds: float) -> Ending:
    """Attack over one connection."""
    began = time.monotonic()
    with socket.socket() as sock:
        if not attack.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.settimeout(10)
        try:
            sock.connect(("127.0.0.1", port))
            if attack.kind == "ws":
                sock.sendall(HANDSHAKE)
                if b" 101 " not in sock.recv(4096):
                    return Ending("no WebSocket", 0.0, 0, True)
        except OSError as error:
            return Ending(type(error).__name__, time.monotonic() - began, 0, True)
        return _Connection(attack, sock, port).run(began, began + seconds)


class _Connection:
    def __init__(self, attack: Attack, sock: socket.socket, port: int) -> None:
        self.attack, self.sock, self.port = attack, sock, port
        self.own = sock.getsockname()[1]
        self.sent, self.came = 0, bytearray()
        self.units = attack.units()
        self.pending = memoryview(b"")
        self.due = self.looked = 0.0
        self.accepted = False
        self.words, self.after, self.bytes_sent = "", 0.0, 0

    def run(self, began: float, until: float) -> Ending:
        self.sock.setblocking(False)
        poll, closed = select.poll(), False
        while (now := time.monotonic()) < until and not closed:
            if not self.pending and now >= self.due:
                self.pending = memoryview(next(self.units, b""))
                self.due = now + self.attack.pace
            wanted = select.POLLIN if self.attack.reads else 0
            poll.register(self.sock, wanted | (select.POLLOUT if self.pending else 0))
            poll.poll(0 if self.pending and not wanted else min(100, max(1, int(1000 * (self.due - now)))))
            closed = self._write() or self._read() or self._is_let_go(now)
            self._notice(began, closed)
        if not closed and not self.words:
            return Ending("", time.monotonic() - began, self.sent, False)
        return Ending(self.words, self.after, self.bytes_sent, closed)

    def _write(self) -> bool:
        if self.pending:
            try:
                done = self.sock.send(self.pending)
                self.sent += done
                self.pending = self.pending[done:]
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                self._read()
                return True
        return False

    def _read(self) -> bool:
        """Read what has come, if the attack does; whether the connection is at its end."""
        if not self.attack.reads:
            return False
        try:
            data = self.sock.recv(2**18)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.came += data
        return not data

    def _is_let_go(self, now: float) -> bool:
        """Whether the server has closed a connection that is not read: its end has no owner any more."""
        if self.attack.reads or now - self.looked < 0.5:
            return False
        self.looked = now
        inode = owner(self.port, self.own)
        self.accepted |= bool(inode)
        return inode is None or (not inode and self.accepted)

    def _notice(self, began: float, closed: bool) -> None:
        if self.words or not (closed or self.came):
            return
        found, left = told(self.came, self.attack.kind)
        if not found and closed:
            found = "closed" if self.attack.reads else "cut"
            if self.attack.kind == "http" and (statuses := _STATUS.findall(self.came)):
                found = f"{statuses[-1].decode()}, closed"
        if found:
            self.words, self.after, self.bytes_sent = found, time.monotonic() - began, self.sent
        del self.came[:left]


def owner(port: int, other: int) -> int | None:
    """The inode of the server's end of a connection, 0 where no process has it, None: gone; sock_diag(7)."""
    local = socket.inet_aton("127.0.0.1")
    places = (socket.htons(port), socket.htons(other), local, local, 0, b"\xff" * 8)
    asked = _ASKED.pack(_ASKED.size, _BY_FAMILY, _REQUEST, 1, 0, _IPV4, _TCP, 0, 0, 2**32 - 1, *places)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _DIAG) as sock:
        sock.send(asked)
        answer = sock.recv(8192)
    found, inode = struct.unpack_from("=H", answer, 4)[0], answer[_INODE]
    if found != _BY_FAMILY or answer[_STATE] == _LISTEN:  # a listener is found where there is no connection
        return None
    return int.from_bytes(inode, sys.byteorder)


def told(data: bytearray, kind: str) -> tuple[str, int]:
    """What the server has said of the end, and how many bytes need no second look."""
    if kind == "h2":
        return _goaway(data)
    if kind == "ws":
        return _close(data)
    refused = [status for status in _STATUS.findall(data) if status >= b"400"]
    return refused[0].decode() if refused else "", max(0, len(data) - _KEPT)


def _goaway(data: bytearray) -> tuple[str, int]:
    start = 0
    while len(data) >= start + 9:
        length, kind = int.from_bytes(data[start : start + 3], "big"), data[start + 3]
        if len(data) < start + 9 + length:
            break
        if kind == 7:  # RFC 9113, 6.8
            code = int.from_bytes(data[start + 13 : start + 17], "big")
            return f"GOAWAY {ErrorCodes(code).name if code <= 13 else code}", start
        start += 9 + length
    return "", start


def _close(data: bytearray) -> tuple[str, int]:
    """The same of a WebSocket's server: RFC 6455, 5.2."""
    start = 0
    while len(data) >= start + 2:
        length, body = data[start + 1] & 127, start + 2
        if length == 126:
            length, body = int.from_bytes(data[body : body + 2], "big"), body + 2
        if len(data) < body + length:
            break
        if data[start] & 15 == 8:
            code = int.from_bytes(data[body : body + 2], "big") if length >= 2 else 0
            return f"close {code or ''}".strip(), start
        start = body + length
    return "", start


def read_as(attack: Attack, port: int, seconds: float = 1.5) -> Ending:
    """Send a request that can be read in two ways: the answers' statuses, and whether it stays open."""
    began, came, closed = time.monotonic(), b"", False
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"".join(attack.units()))
        while not closed and (left := began + seconds - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                data = sock.recv(65536)
                came, closed = came + data, not data
            except TimeoutError:
                break
            except OSError:
                closed = True
    words = " and ".join(status.decode() for status in _STATUS.findall(came)) or "no answer"
    return Ending(words, time.monotonic() - began, 0, closed)


def be_many(attack: Attack, port: int, seconds: float) -> Ending:
    """Open many connections, send the first of each, and wait until the server has ended all."""
    first, connections = b"".join(attack.units()), attack.connections
    socks: dict[int, socket.socket] = {}
    poll = select.poll()
    for _ in range(connections):
        sock = socket.socket()
        sock.settimeout(1)
        try:
            sock.connect(("127.0.0.1", port))
            sock.sendall(first)
        except OSError:
            sock.close()
            break
        poll.register(sock, select.POLLIN)
        socks[sock.fileno()] = sock
    opened, words, began = len(socks), "closed", time.monotonic()
    while socks and time.monotonic() - began < seconds:
        for fd, _ in poll.poll(200):
            sock = socks[fd]
            try:
                data = sock.recv(4096)
            except OSError:
                data = b""
            if data:
                words = told(bytearray(data), "http")[0] or words
            else:
                poll.unregister(fd)
                socks.pop(fd).close()
    left = len(socks)
    for sock in socks.values():
        sock.close()
    taken = time.monotonic() - began
    if left:
        return Ending("" if left == opened else f"{left} of {opened} left", taken, 0, False)
    return Ending(words if opened == connections else f"{opened} let in, {words}", taken, 0, True)


def be_modest() -> None:
    """An attacker is on a machine of its own: here it must not take the server's share of the cores."""
    os.nice(10)
