"""Executes mooring again after a pre-start hook that changed variables which only an exec takes up.

These are LD_*, PYTHON* and others that the dynamic linker and the interpreter read at their start. Workers
are forked, so a change would not reach them. Not for ordinary variables: workers are given those.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from mooring.settings.invocation import Invocation
from mooring.system.signals import SUPERVISED

_PREFIXES = ("LD_", "PYTHON", "MALLOC_", "GLIBC_")
_MARK = "_MOORING_HOOK_RAN"


def needed(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether a variable differs that is read only when a process starts."""
    names = {name for name in (*before, *after) if name.startswith(_PREFIXES)}
    return any(before.get(name) != after.get(name) for name in names)


def again(after: Invocation) -> NoReturn:
    """Execute this command again in the same process, with the hook's environment, and without the hook."""
    mark = f"{os.getpid()}:{after.cwd or ''}"
    os.chdir(after.folder)
    # Block signals until mooring handles them again: process 1 would lose them otherwise.
    signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISED)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**after.environ, _MARK: mark})  # noqa: S606


def taken_up(invocation: Invocation) -> Invocation | None:
    """The invocation that the hook left, if `again` has executed this process; else None."""
    pid, _, cwd = invocation.environ.get(_MARK, "").partition(":")
    if pid != str(os.getpid()):
        return None
    rest = {name: value for name, value in invocation.environ.items() if name != _MARK}
    return invocation._replace(environ=rest, cwd=cwd or None)
