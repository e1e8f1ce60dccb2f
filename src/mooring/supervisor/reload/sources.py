"""Where live reload's changes come from: inotify through watchfiles, or polling.

Runs in the watcher's process (process.py). Which files count: files.py.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mooring.supervisor.reload import files
from mooring.supervisor.reload.files import FileRules, Tree

_STEP = 50  # milliseconds between two looks at what inotify has sent: 20 wake-ups a second, 0.1 % of a core
_LEAST_INTERVAL, _MOST_INTERVAL = 0.3, 10.0  # seconds between two polls
_SHARE = 0.005  # of a core, that polling may take
_LOOK_FOR_MISSING = 1.0  # seconds between two looks for folders that did not exist
_TRIES = 10
# Nanoseconds by which a file's times may be behind the clock: one tick of the kernel.
_COARSE_CLOCK = 10_000_000


@dataclass(frozen=True, slots=True)
class WatchOrder:
    """What to watch: folders, rules, `polling` (auto, on, off), seconds of quiet that end a burst.

    What changed after `since`, in nanoseconds since the epoch, is reported at once.
    """

    roots: tuple[str, ...]
    rules: FileRules
    polling: str
    quiet: float
    since: int


class Source(Protocol):
    """Where changes come from."""

    tree: Tree

    def wait(self, timeout: float | None) -> set[str]:
        """The changed paths; empty after `timeout` seconds without one. Raises OSError if it cannot go on."""


class Polled:
    """Polls, with at most _SHARE of a core. First reports what differs from `tree`, where that is given."""

    def __init__(self, watch: WatchOrder, tree: Tree | None = None) -> None:
        self._watch = watch
        self.interval = _LEAST_INTERVAL
        self.tree = Tree()
        self._found = self._look()
        if tree is None:
            self._found = set(files.changed_since(self.tree.files, watch.since - _COARSE_CLOCK))
        else:
            self._found = files.changed(tree.files, self.tree.files)

    def wait(self, timeout: float | None) -> set[str]:
        """See Source."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._found:
            left = self.interval if end is None else end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(self.interval, left))
            self._found = self._look()
        found, self._found = self._found, set()
        return found

    def _look(self) -> set[str]:
        before = self.tree
        cpu, wall = time.process_time(), time.monotonic()
        self.tree = files.look(self._watch.roots, self._watch.rules)
        cost = max((time.process_time() - cpu) / _SHARE, 2 * (time.monotonic() - wall))
        self.interval = min(max(_LEAST_INTERVAL, cost), _MOST_INTERVAL)
        return files.changed(before.files, self.tree.files)


class Notified:
    """Listens to inotify through watchfiles, folder by folder, so that skipped folders cost no watch."""

    def __init__(self, watch: WatchOrder) -> None:
        self._watch = watch
        self._batches: Iterator[Any] = iter(())
        self._look_at = 0.0
        self._broken: OSError | None = None
        self.tree = files.look(watch.roots, watch.rules)
        self._found = set(files.changed_since(self.tree.files, watch.since - _COARSE_CLOCK))
        self._found |= self._arm()

    def wait(self, timeout: float | None) -> set[str]:
        """See Source."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._found and (end is None or time.monotonic() < end):
            if self._broken is not None:
                raise self._broken
            self._found = self._hear()
        found, self._found = self._found, set()
        return found

    def _arm(self) -> set[str]:
        """Listen to the folders that exist now; returns what has changed since the last look."""
        before = self.tree
        try:
            return self._arm_anew(before)
        except (OSError, RuntimeError):
            self.tree = before  # so that the polling that follows misses no change
            raise

    def _arm_anew(self, before: Tree) -> set[str]:
        from watchfiles import watch

        for _ in range(_TRIES):
            self.tree = files.look(self._watch.roots, self._watch.rules)
            targets = {os.path.dirname(target) for target in self.tree.links}
            places = [place for place in self.tree.folders.keys() | targets if _is_text(place)]
            self._batches = watch(
                *places,
                watch_filter=None,
                recursive=False,
                step=_STEP,
                debounce=_STEP,
                rust_timeout=_STEP,
                yield_on_timeout=True,
                force_polling=False,
                ignore_permission_denied=False,  # True would hide that an inotify limit is reached
            )
            # Suppressed where a folder has gone, or was closed, since the look: then look again.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                first = next(self._batches)
                after = files.look(self._watch.roots, self._watch.rules)
                if after.folders.keys() == self.tree.folders.keys():
                    self.tree = after
                    return files.changed(before.files, after.files) | self._understand(first)[0]
        raise OSError("the folders change faster than they can be listened to")

    def _hear(self) -> set[str]:
        try:
            found, arm = self._understand(next(self._batches))
        except RuntimeError:  # WatchfilesRustInternalError: a name that is not UTF-8
            found, arm = set(), True
        now = time.monotonic()
        if self.tree.missing and now >= self._look_at:
            self._look_at = now + _LOOK_FOR_MISSING
            arm = arm or any(map(os.path.isdir, self.tree.missing))
        try:
            return found | self._arm() if arm else found
        except (OSError, RuntimeError) as error:
            self._broken = OSError(str(error))
            return found

    def _understand(self, batch: set[tuple[Any, str]]) -> tuple[set[str], bool]:
        """The files of a batch that count, and whether the folders to listen to may have changed."""
        found, arm = set(), False
        for _, place in batch:
            path = self.tree.links.get(place, place)
            folder = self.tree.folders.get(os.path.dirname(path))
            if path in self.tree.folders:
                arm = True
            elif folder is None:
                continue
            elif os.path.isdir(path):
                arm = arm or self._watch.rules.enter(folder, path) is not None
            elif self._watch.rules.counts(folder, path):
                files.refresh(self.tree, path)
                found.add(path)
                arm = arm or os.path.islink(path)  # the link may have another target now
        return found, arm


def _is_text(path: str) -> bool:
    """Whether a path is UTF-8, which watchfiles requires."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
