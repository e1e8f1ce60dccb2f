"""A change is made in a process apart, so that what a failure leaves can be undone.

py-rattler's threads go on for a while after an error: only once their process has ended is it sure that
nothing is written any more. This one waits for that, undoes, and removes what was downloaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mooring.commands.conda.places import Places
from mooring.errors import ConfigurationError, ToolError

_NOTE = "undo.json"


def apart(at: Places, work: Callable[[Places], int]) -> int:
    """Do the work in a child, with a folder for it. Returns its exit code.

    Raises ConfigurationError, and ToolError if the child is killed.
    """
    writable(at.downloads)
    at.downloads.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".mooring-", dir=at.downloads))
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = work(dataclasses.replace(at, scratch=scratch))
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            _undo(scratch / _NOTE)
        if code < 0:
            raise ToolError(f"ended by signal {-code}; out of memory?", 128 - code)
        return code
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def writable(folder: Path) -> None:
    """Raise ConfigurationError if this user cannot write there."""
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(place, os.W_OK):
        raise ConfigurationError(f"{place} cannot be written by this user; install as root (USER root)")


def begin(at: Places, prefix: Path, before: Path | None = None) -> None:
    """From here on a failure removes this new environment; what was there before has moved to `before`."""
    note = {"remove": str(prefix), "restore": str(before or "")}
    (at.scratch / _NOTE).write_text(json.dumps(note))


def done(at: Places) -> None:
    """The environment is complete: what fails later does not remove it."""
    (at.scratch / _NOTE).unlink(missing_ok=True)


def _undo(note: Path) -> None:
    if not note.exists():
        return
    said = json.loads(note.read_text())
    prefix, before = Path(said["remove"]), Path(said["restore"] or os.devnull)
    if said["restore"] and not before.is_dir():
        return  # it had not moved yet
    shutil.rmtree(prefix, ignore_errors=True)
    if said["restore"]:
        before.rename(prefix)
