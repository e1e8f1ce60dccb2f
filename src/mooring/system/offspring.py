"""The processes that a process of mooring's has below it: found in /proc, and ended with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_PATIENCE, _NAP = 0.3, 0.01  # seconds from TERM to KILL at a process's end; between two looks


def ask() -> None:
    """Before the interpreter's end: send TERM to the children that multiprocessing would wait for, without end.

    Those that are daemonic get it from multiprocessing itself. What has a handler has the rest of the time.
    """
    multiprocessing: Any = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return
    for each in multiprocessing.active_children():
        if not each.daemon and each._parent_pid == os.getpid():
            each.terminate()


def end_strays() -> None:
    """At a process's very end: end its descendants outside its process group, by TERM, then by KILL.

    Those in the group are ended by whoever reaps this process. What has left both (a daemon, by two forks) is no
    descendant any more, and stays.
    """
    if not _has_children():
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
    return [pid for pid, group in _children() if pid == group]


def _children() -> Iterator[tuple[int, int]]:
    """This process's children, each with its process group."""
    try:
        found = [
            int(pid)
            for task in os.listdir("/proc/self/task")
            for pid in _text(f"/proc/self/task/{task}/children").split()
        ]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        yield from ((pid, group) for pid, parent, group in _processes() if parent == os.getpid())
        return
    for pid in found:
        with suppress(ProcessLookupError):
            yield pid, os.getpgid(pid)


def _text(path: str) -> bytes:
    """A file's content; empty where its thread has ended."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            raise OSError(path) from None
        return b""


def parent(pid: int) -> int:
    """A process's parent; 0 where it has ended."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def descendants(pid: int) -> list[tuple[int, int]]:
    """The processes below a process, its children first: each with its process group. Without zombies."""
    below: dict[int, list[tuple[int, int]]] = {}
    for child, parent, group in _processes():
        below.setdefault(parent, []).append((child, group))
    found = list(below.get(pid, ()))
    for child, _ in found:  # it grows meanwhile
        found += below.get(child, ())
    return found


def _processes() -> Iterator[tuple[int, int, int]]:
    """Pid, parent and process group of every process that has not ended."""
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return
    for name in names:
        with suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent, group = file.read().rpartition(b")")[2].split()[:3]  # proc_pid_stat(5)
            if state not in {b"Z", b"X"}:
                yield int(name), int(parent), int(group)
