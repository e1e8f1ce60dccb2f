"""The watcher's process: waits for changes, by notification or by polling, and reports each burst once.

It is a process of its own because watchfiles runs threads, and the supervisor must not, since it forks
(watcher.py is the supervisor's side). Which files count: files.py; where changes come from: sources.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mooring.supervisor.reload import files
from mooring.supervisor.reload.files import Tree
from mooring.supervisor.reload.sources import Notified, Polled, Source, WatchOrder
from mooring.system import mounts

if TYPE_CHECKING:
    from mooring.logs.log import Log

_LONGEST_BURST = 5.0  # seconds; a file that is written without end must not delay the reload forever


def run(watch: WatchOrder, log: Log, report: int) -> int:
    """Report bursts on the descriptor `report`, as lines of JSON, until killed. Returns 0 where it can't."""
    source = _open(watch, log)
    while source is not None:
        try:
            for burst in bursts(source, watch.quiet):
                line = {"path": min(burst), "files": len(burst)}
                os.write(report, json.dumps(line).encode() + b"\n")
        except BrokenPipeError:
            break  # the supervisor is gone
        except OSError as error:
            source = _fall_back(watch, log, error, source.tree)
    return 0


def _open(watch: WatchOrder, log: Log) -> Source | None:
    source: Source
    reason = _why_polling(watch)
    if reason:
        source = Polled(watch)
    else:
        try:
            source = Notified(watch)
        except (OSError, RuntimeError) as error:
            return _fall_back(watch, log, error, None)
    for root in source.tree.missing:
        log.warning(f"reload_dirs: there is no folder {root}; it is watched as soon as there is one")
    _tell(watch, log, source, reason)
    return source


def _why_polling(watch: WatchOrder) -> str:
    if watch.polling == "on":
        return "reload_polling is on"
    if watch.polling == "off":
        return ""
    folders = {os.path.realpath(each) for each in files.look(watch.roots, watch.rules).folders}
    found = mounts.silent(sorted(folders))
    return f"{found[0]} is on {found[1]}, which sends no notifications" if found else ""


def _fall_back(watch: WatchOrder, log: Log, error: Exception, tree: Tree | None) -> Source | None:
    """Poll from now on. None where polling is off, or has failed itself."""
    why = str(error).partition(" about [")[0]  # without the paths that Rust adds
    if watch.polling != "auto":
        log.error(f"live reload is off: {why}")
        return None
    log.warning(f"live reload polls, since the system cannot notify (fs.inotify limits?): {why}")
    source = Polled(watch, tree)
    _tell(watch, log, source, "the system cannot notify")
    return source


def _tell(watch: WatchOrder, log: Log, source: Source, polling: str) -> None:
    how = f", polling: {polling}" if polling else ""
    log.info(f"live reload watches {len(source.tree.files)} files in {', '.join(watch.roots)}{how}")


def bursts(source: Source, quiet: float) -> Iterator[set[str]]:
    """Sets of changed paths. A set ends after `quiet` seconds without a change, or after _LONGEST_BURST."""
    while True:
        found = source.wait(None)
        end = time.monotonic() + max(_LONGEST_BURST, quiet)
        with contextlib.suppress(OSError):  # the next wait raises it again: first report what was found
            while time.monotonic() < end and (more := source.wait(quiet)):
                found |= more
        yield found
