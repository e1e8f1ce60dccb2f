"""Finds what an import has left behind that does not survive a fork. For a template, before it forks.

A child has none of the threads. All children share the sockets, the event loops and SQLite's connections. A
process that the import has started is the template's child, not theirs: they cannot wait for it.
"""

from __future__ import annotations

import gc
import os
import socket
import stat
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mooring.errors import ApplicationError
from mooring.system import forks

if TYPE_CHECKING:
    from mooring.logs.log import Log

_PATIENCE, _NAP = 0.5, 0.02  # seconds: for threads that are about to end; between two looks
_EPOLL = "anon_inode:[eventpoll]"
_MOST = 20  # findings that are listed
_NATIVE = "a native thread"
_SQLITE = b"SQLite format 3\0"  # how a database begins, https://www.sqlite.org/fileformat.html

Descriptors = dict[int, str]


def snapshot() -> Descriptors:
    """The descriptors of this process, and what each is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def find(before: Descriptors) -> list[str]:
    """What exists now and did not `before` the import, as texts; equal ones are counted: `3 times ...`."""
    if any(text.startswith(_NATIVE) for text in _threads()):
        _rehearse()
    deadline = time.monotonic() + _PATIENCE
    while (running := [*_threads(), *_children()]) and time.monotonic() < deadline:
        time.sleep(_NAP)
    loops = _loops()
    words = Counter([*running, *map(_loop, loops), *_descriptors(before, loops)])
    return [text if number == 1 else f"{number} times {text}" for text, number in words.items()]


def enforce(found: list[str], mode: str, log: Log) -> None:
    """Refuse, or warn, as MOORING_PRELOAD says. Raises ApplicationError."""
    if not found:
        return
    shown = ", ".join(found[:_MOST]) + (f" and {len(found) - _MOST} more" if len(found) > _MOST else "")
    if mode == "refuse":
        raise ApplicationError(
            f"the application cannot be preloaded, since its import leaves behind what a fork does not carry "
            f"over: {shown}; open and start that when the application starts up, or set MOORING_PRELOAD=warn "
            "or off"
        )
    log.warning(
        f"MOORING_PRELOAD: the application's import leaves behind what a fork does not carry over: {shown}; "
        "workers lack the threads and child processes, and share the sockets, databases and event loops"
    )


# -- threads -----------------------------------------------------------------------------------------------


def _threads() -> list[str]:
    """Every thread but the main one, by its name and what it runs."""
    known = {thread.native_id: thread for thread in threading.enumerate()}
    found = []
    for name in sorted(os.listdir("/proc/self/task"), key=int):
        if int(name) == os.getpid():
            continue
        thread = known.get(int(name))
        found.append(f"thread {thread.name}{_origin(thread)}" if thread else f"{_NATIVE}{_comm(name)}")
    return found


def _rehearse() -> None:
    """Fork once: a library with a fork handler, such as numpy's OpenBLAS, then ends its threads itself."""
    with forks.own():
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    with suppress(ChildProcessError):  # the application ignores SIGCHLD
        os.waitpid(pid, 0)


def _origin(thread: threading.Thread) -> str:
    """` (poll, /app/main.py:12)`: the function that it was started with."""
    target: Any = getattr(thread, "_target", None)
    if target is None and type(thread).run is not threading.Thread.run:
        target = type(thread).run
    target = getattr(target, "func", target)  # of a functools.partial
    code = getattr(target, "__code__", None)
    if code is None:
        return ""
    return f" ({code.co_name}, {code.co_filename}:{code.co_firstlineno})"


def _comm(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            return f" ({file.read().strip()})"
    except OSError:
        return ""


# -- child processes ---------------------------------------------------------------------------------------


def _children() -> list[str]:
    """Every child that has not ended, by its name. Without multiprocessing's tracker: forks may share it."""
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    known = getattr(getattr(tracker, "_resource_tracker", None), "_pid", None)
    found = []
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                head, _, rest = file.read().rpartition(")")
        except OSError:
            continue  # it has ended
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid() and state not in "ZX" and int(name) != known:
            found.append(f"a child process ({head.partition('(')[2]}, pid {name})")
    return found


# -- event loops -------------------------------------------------------------------------------------------


def _loops() -> list[Any]:
    """The event loops of asyncio and uvloop that are not closed; those frozen by gc are not found."""
    asyncio: Any = sys.modules.get("asyncio")
    base = getattr(asyncio, "AbstractEventLoop", None)
    if base is None:
        return []
    # By its type: isinstance() would ask the application's proxies for their __class__.
    loops: list[Any] = [each for each in gc.get_objects() if issubclass(type(each), base)]
    return [loop for loop in loops if not _is_closed(loop)]


def _is_closed(loop: Any) -> bool:
    try:
        return bool(loop.is_closed())
    except Exception:  # the loop is of a class of the application
        return True


def _loop(loop: Any) -> str:
    name = f"{type(loop).__module__}.{type(loop).__qualname__}"
    return f"a running event loop ({name})" if loop.is_running() else f"an open event loop ({name})"


def _own(loop: Any) -> set[int]:
    """The descriptors that belong to a loop, as far as its attributes show."""
    found = set()
    for name in ("_ssock", "_csock", "_selector"):
        try:
            found.add(getattr(loop, name).fileno())
        except (AttributeError, ValueError, OSError, TypeError):
            continue
    return found


# -- descriptors -------------------------------------------------------------------------------------------


def _descriptors(before: Descriptors, loops: list[Any]) -> list[str]:
    """New sockets and epoll instances that belong to none of these loops, and open SQLite databases."""
    explained = {fd for loop in loops for fd in _own(loop)}
    silent = sum(not _own(loop) for loop in loops)  # uvloop's loops do not show their epoll instance
    found = []
    for fd, what in sorted(snapshot().items()):
        if before.get(fd) == what or fd in explained:
            continue
        if what.startswith("socket:"):
            found.append(f"{_socket(fd)} (descriptor {fd})")
        elif what == _EPOLL:
            silent -= 1
            if silent < 0:
                found.append(f"an epoll instance (descriptor {fd})")
        elif _is_sqlite(fd, what):
            found.append(f"an open SQLite database, {what} (descriptor {fd})")
    return found


def _is_sqlite(fd: int, what: str) -> bool:
    """Whether a descriptor is a database. The file is not opened: closing it would drop SQLite's locks."""
    try:
        return what.startswith("/") and stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, 16, 0) == _SQLITE
    except OSError:
        return False  # it is open only for writing


def _socket(fd: int) -> str:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return f"a socket that listens at {_address(sock.getsockname())}"
            try:
                peer = _address(sock.getpeername())
            except OSError:
                return f"an unconnected socket at {_address(sock.getsockname())}"
            return f"a socket connected to {peer}" if peer else "a socket connected to an unnamed one"
    except (OSError, ValueError):
        return "a socket"


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host = str(address[0])
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    text = address.decode("utf-8", "replace") if isinstance(address, bytes) else str(address)
    return text.replace("\0", "@")
