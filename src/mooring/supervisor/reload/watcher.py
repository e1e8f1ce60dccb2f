"""Live reload, the supervisor's side: keeps the watcher (process.py) running, and reads its reports."""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path

from mooring.logs.log import Log
from mooring.plan.plan import Plan
from mooring.supervisor.part import Part
from mooring.supervisor.reload import process as watcher_process
from mooring.supervisor.reload.files import FileRules
from mooring.supervisor.reload.sources import WatchOrder
from mooring.system import process
from mooring.system.child import NEVER, Child, Restarts

_RESTARTS = Restarts(stable=5.0, give_up=3)  # at once, but at most twice in a row
_LEAST_QUIET = 0.01  # seconds


class Watcher(Part):
    """Starts the watcher's process, and calls `changed` with a path and a number of files for each burst."""

    def __init__(
        self,
        plan: Plan,
        log: Log,
        selector: selectors.BaseSelector,
        changed: Callable[[str, int], None],
        since: int,
    ) -> None:
        """`since` (nanoseconds since the epoch): worker 0 may not have read what was saved later."""
        self.log = log
        self.selector = selector
        self.changed = changed
        self._child = Child(_RESTARTS)
        self._roots = roots(plan)
        self._rules = FileRules(plan.settings.reload_includes, plan.settings.reload_excludes)
        self._polling = plan.settings.reload_polling
        self._quiet = max(_LEAST_QUIET, plan.settings.reload_delay)
        self._since = since
        self._buffer = b""

    def start(self) -> None:
        """Start the process; where the system refuses, say that there is no live reload."""
        watch = WatchOrder(self._roots, self._rules, self._polling, self._quiet, self._since)
        read, write = os.pipe()
        try:
            self._child.start(
                lambda: watcher_process.run(watch, self.log, write), [self.log.fd], ours=read, theirs=write
            )
        except OSError as error:
            self.log.error(f"live reload is off: no process could be started for it: {error.strerror}")
            return
        self._buffer = b""
        self._child.listen(self.selector, self._hear)

    def stop(self) -> None:
        """End the process."""
        self._child.stop()

    def exited(self, ended: process.Reaped, /) -> None:
        """React to the end of a process that is not a worker: if it was the watcher, start another."""
        if not self._child.ended(ended.pid):
            return
        self._hear()
        self._child.deafen()
        if ended.code == 0:
            return  # it has logged why
        if self._child.failed() == NEVER:
            self.log.error("live reload is off: its watcher keeps ending; restart mooring to have it back")
            return
        self.log.warning(f"live reload's watcher ended ({process.describe(ended.code)}); starting another")
        self.start()

    def _hear(self) -> None:
        if self._child.channel < 0:
            return
        try:
            data = os.read(self._child.channel, 65536)
        except BlockingIOError:
            return
        if not data:
            self._child.deafen()  # it has ended: `exited` follows
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if lines:
            self._since = time.time_ns()
            burst = json.loads(lines[-1])
            self.changed(burst["path"], burst["files"])


def roots(plan: Plan) -> tuple[str, ...]:
    """The folders to watch: those of the settings, else the application root and the module's folders."""
    base: str = plan.settings.app_root or "."
    if plan.settings.reload_dirs:
        return tuple(dict.fromkeys(_folder(base, name) for name in plan.settings.reload_dirs))
    found = dict.fromkeys(os.path.abspath(folder) for folder in (base, *map(str, plan.target.search)))
    return tuple(
        one for one in found if not any(Path(one).is_relative_to(other) and one != other for other in found)
    )


def _folder(base: str, name: str) -> str:
    """The path of a folder that a user names: below the application root, or else the working folder."""
    inside = os.path.abspath(os.path.join(base, name))
    here = os.path.abspath(name)
    return here if os.path.isdir(here) and not os.path.isdir(inside) else inside
