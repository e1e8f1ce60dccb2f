"""The processes that a process of mooring's has below it: found in /proc, and ended with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

_PATIENCE, _NAP = 0.3, 0.01  # seconds from TERM to KILL at a process's end; between two looks


class _Ends:
    """Whether this process ends its children when it ends."""

    children = True


def leave_alone() -> None:
    """In a fork of the application's: its children are its own affair. It may be about to become a daemon."""
    _Ends.children = False


def ask() -> None:
    """Before the interpreter's end: send TERM to the children that multiprocessing would wait for for ever.

    Those that are daemonic get it from multiprocessing itself. What has a handler has the rest of the time.
    """
    multiprocessing: Any = sys.modules.get("multiprocessing")
    if multiprocessing is None or not _Ends.children:
        return
    for each in multiprocessing.active_children():
        if not each.daemon and each._parent_pid == os.getpid():
            each.terminate()


def end_strays() -> None:
    """At a process's very end: end its descendants outside its process group, by TERM, then by KILL.

    Those in the group are ended by whoever reaps this process. A daemon (two forks, a session of its own) is
    no descendant any more, and stays.
    """
    if not _Ends.children or not _has_children():
        return
    number, deadline = signal.SIGTERM, time.monotonic() + _PATIENCE
    strays = _strays()
    while strays:
        for pid in strays:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if number == signal.SIGKILL:
            return
        while (left := set(_strays()) & set(strays)) and time.monotonic() < deadline:
            time.sleep(_NAP)
        strays, number = sorted(left), signal.SIGKILL


def _strays() -> list[int]:
    group, tracker = os.getpgrp(), _tracker()
    shared = group != os.getpid()  # nobody ends that group with this process
    found = descendants(os.getpid())
    return [pid for pid, its in found if (shared or its != group) and pid != tracker]


def _tracker() -> int | None:
    """The pid of multiprocessing's resource tracker, which ends by itself when all that use it have."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    return getattr(getattr(module, "_resource_tracker", None), "_pid", None)


def _has_children() -> bool:
    with suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def leaders() -> list[int]:
    """Those children of this process that lead process groups of their own."""
    if not _has_children():
        return []
    found = {pid: _look(pid) for pid in _children(os.getpid())}
    return [pid for pid, look in found.items() if look is not None and look.group == pid]


def parent(pid: int) -> int:
    """A process's parent; 0 where it has ended."""
    found = _look(pid)
    return 0 if found is None else found.parent


def descendants(pid: int) -> list[tuple[int, int]]:
    """The processes below a process, its children first: each with its process group. Without zombies."""
    found, above = list[tuple[int, int]](), [pid]
    for each in above:  # it grows meanwhile
        for child in _children(each):
            look = _look(child)
            if look is not None:
                found.append((child, look.group))
                above.append(child)
    return found


class _Look(NamedTuple):
    parent: int
    group: int


def _look(pid: int) -> _Look | None:
    """What /proc says of a process that has not ended; None: it has."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, above, group = file.read().rpartition(b")")[2].split()[:3]  # proc_pid_stat(5)
    except (OSError, ValueError):
        return None
    return None if state in {b"Z", b"X"} else _Look(int(above), int(group))


def _children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{task}"):
                return _searched(pid)  # a kernel without CONFIG_PROC_CHILDREN
        except OSError:
            continue  # the thread has ended meanwhile
    return found


def _searched(pid: int) -> list[int]:
    names = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [each for each in names if parent(each) == pid]
