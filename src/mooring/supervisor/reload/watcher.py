"""Live reload, the supervisor's side: keeps the watcher (process.py) running, and hears what changed."""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path

from mooring.logs.log import Log
from mooring.plan.plan import Plan
from mooring.supervisor.reload import process as watching
from mooring.supervisor.reload.files import FileRules
from mooring.supervisor.reload.sources import WatchOrder
from mooring.system import process

_GIVE_UP = 3  # watchers in a row that have not lived for _STABLE seconds
_STABLE = 5.0
_LEAST_QUIET = 0.01


class Watcher:
    """Starts the watcher's process, and calls `changed` with a path and a number of files for each burst."""

    def __init__(
        self,
        plan: Plan,
        log: Log,
        selector: selectors.BaseSelector,
        changed: Callable[[str, int], None],
        since: int,
    ) -> None:
        """`since`, in nanoseconds since the epoch: what was saved later may not be what worker 0 has read."""
        self.log = log
        self.selector = selector
        self.changed = changed
        self.pid = -1
        self._roots = roots(plan)
        self._rules = FileRules(plan.settings.reload_includes, plan.settings.reload_excludes)
        self._polling = plan.settings.reload_polling
        self._quiet = max(_LEAST_QUIET, plan.settings.reload_delay)
        self._since = since
        self._pipe = -1
        self._buffer = b""
        self._born = 0.0
        self._deaths = 0

    def start(self) -> None:
        """Start the process; where the system refuses, say that there is no live reload."""
        watch = WatchOrder(self._roots, self._rules, self._polling, self._quiet, self._since)
        read, write = os.pipe()
        try:
            self.pid = process.spawn(lambda: watching.run(watch, self.log, write), [write, self.log.fd])
        except OSError as error:
            os.close(read)
            self.log.error(f"live reload is off: no process could be started for it: {error.strerror}")
            return
        finally:
            os.close(write)
        os.set_blocking(read, False)
        self._pipe, self._buffer, self._born = read, b"", time.monotonic()
        self.selector.register(read, selectors.EVENT_READ, self._hear)

    def stop(self) -> None:
        """End the process."""
        if self.pid > 0:
            process.kill_group(self.pid)
            os.waitpid(self.pid, 0)
            self.pid = -1
        self._deafen()

    def exited(self, ended: process.Reaped) -> None:
        """The supervisor has reaped a process that is no worker: when it was the watcher, start another."""
        if ended.pid != self.pid:
            return
        self._hear()
        self._deafen()
        self.pid = -1
        if ended.code == 0:
            return  # it has said why
        self._deaths = self._deaths + 1 if time.monotonic() - self._born < _STABLE else 1
        if self._deaths >= _GIVE_UP:
            self.log.error("live reload is off: its watcher keeps ending; restart mooring to have it back")
            return
        self.log.warning(f"live reload's watcher ended ({process.describe(ended.code)}); starting another")
        self.start()

    def _deafen(self) -> None:
        if self._pipe >= 0:
            self.selector.unregister(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    def _hear(self) -> None:
        if self._pipe < 0:
            return
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._deafen()  # it has ended: the reaper will tell
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if lines:
            self._since = time.time_ns()
            burst = json.loads(lines[-1])
            self.changed(burst["path"], burst["files"])


def roots(plan: Plan) -> tuple[str, ...]:
    """The folders to watch: those of the settings, else the application root and where else its module is."""
    base: str = plan.settings.app_root or "."
    if plan.settings.reload_dirs:
        return tuple(dict.fromkeys(_folder(base, name) for name in plan.settings.reload_dirs))
    found = dict.fromkeys(os.path.abspath(folder) for folder in (base, *map(str, plan.target.search)))
    return tuple(
        one for one in found if not any(Path(one).is_relative_to(other) and one != other for other in found)
    )


def _folder(base: str, name: str) -> str:
    """A folder as a user names it: from the application root, or else from the working folder."""
    inside = os.path.abspath(os.path.join(base, name))
    here = os.path.abspath(name)
    return here if os.path.isdir(here) and not os.path.isdir(inside) else inside
