"""What the system knows about sockets: which process listens or is the peer, and which are stale.

Not for opening listeners (listeners.py).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from typing import Literal

UNIX_PATH_MAX = 107  # bytes: unix(7), sun_path without its final NUL


def remove_stale(path: str) -> None:
    """Remove a unix socket on which no process listens any more.

    Raises OSError: EADDRINUSE if a process listens (the text names it), ENOTSOCK if the path is no socket.
    """
    state, pid = socket_state(path)
    if state == "stale":
        os.unlink(path)
    elif state == "live":
        raise OSError(errno.EADDRINUSE, f"it is in use{who(pid)}")
    elif state == "other":
        raise OSError(errno.ENOTSOCK, "a file that is no socket is in the way")


def socket_state(path: str) -> tuple[Literal["absent", "stale", "live", "other"], int]:
    """What is at a unix socket's path, and the pid that listens (0: unknown). Raises PermissionError."""
    if not path.startswith("\0"):
        try:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                return "other", 0
        except (FileNotFoundError, NotADirectoryError):
            return "absent", 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return "stale", 0
        except FileNotFoundError:
            return "absent", 0
        except PermissionError:
            raise
        except OSError:
            return "live", 0  # EAGAIN: its queue is full; EPROTOTYPE: a datagram socket
        return "live", peer_credentials(probe)[0]


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Pid (0: outside our pid namespace), uid and gid of a unix socket's peer (socket(7), SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = (int.from_bytes(raw[at : at + 4], sys.byteorder) for at in (0, 4, 8))
    return pid, uid, gid


def who(pid: int) -> str:
    """Which process uses a socket, for messages: ` by NAME (pid N)`, or "" if the pid is 0."""
    if pid == os.getpid():
        return ", by mooring itself: it is named twice"
    if not pid:
        return ""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f" by {file.read().strip()} (pid {pid})"
    except OSError:
        return f" by pid {pid}"


def port_owner(port: int) -> int:
    """The pid that listens on a TCP port, 0 if that cannot be seen (proc(5), /proc/net/tcp)."""
    wanted = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        wanted |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    for process in filter(str.isdigit, os.listdir("/proc") if wanted else ()):
        folder = f"/proc/{process}/fd"
        try:
            if any(os.readlink(f"{folder}/{fd}") in wanted for fd in os.listdir(folder)):
                return int(process)
        except OSError:
            continue  # the process has ended, or belongs to another user
    return 0
