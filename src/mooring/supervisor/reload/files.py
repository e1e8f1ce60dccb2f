"""Which files live reload watches: the rules of includes and excludes, and one look at the folders.

Standard library only. Not for waiting and notifications: process.py and sources.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

# Temporary files of editors, and bytecode. Another rule skips names with a leading dot.
_LITTER = ("*~", "#*#", "*.py[co]", "*___jb_*___", "flycheck_*")
_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}
_MOST_KNOWN = 100_000

Stamp = tuple[int, int, int]
"""A file's mtime_ns, size and ctime_ns."""


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """A watched folder: the root that it lies below, and whether an include matches it."""

    root: str
    included: bool = False


@dataclass(slots=True)
class Tree:
    """What one look found. `links` maps the target of each linked file to the link's path.

    `missing` are the roots that do not exist.
    """

    folders: dict[str, WatchedFolder] = field(default_factory=dict)
    files: dict[str, Stamp] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


class FileRules:
    """Includes and excludes.

    A pattern without a slash matches names (`*.html`, `migrations`), one with a slash matches paths from the
    root (`app/templates/*.html`, `**/fixtures/*.json`), one that begins with a slash matches absolute paths.
    A folder that matches includes everything in it. As in a shell, `*` matches no leading dot. `*.py` is
    always included, and an exclude wins over an include.
    """

    def __init__(self, includes: Iterable[str] = (), excludes: Iterable[str] = ()) -> None:
        self._includes = tuple(dict.fromkeys(_parts(each) for each in ("*.py", *includes)))
        self._excludes = tuple(dict.fromkeys(_parts(each) for each in excludes))
        self._known: dict[str, bool] = {}

    def counts(self, folder: WatchedFolder, path: str) -> bool:
        """Whether a change of the file `path`, which is in `folder`, causes a reload."""
        known = self._known.get(path)
        if known is None:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            known = self._known[path] = self._counts(folder, path)
        return known

    def _counts(self, folder: WatchedFolder, path: str) -> bool:
        name = os.path.basename(path)
        if any(fnmatchcase(name, litter) for litter in _LITTER):
            return False
        wanted = folder.included and not name.startswith(".")
        return (wanted or _any(self._includes, folder.root, path)) and not _any(
            self._excludes, folder.root, path
        )

    def enter(self, folder: WatchedFolder, path: str) -> WatchedFolder | None:
        """The folder at `path`, which is in `folder`; None where it is not watched."""
        name = os.path.basename(path)
        if name.startswith(".") or name in _SKIPPED_FOLDERS or _any(self._excludes, folder.root, path):
            return None
        if os.path.exists(f"{path}/pyvenv.cfg"):
            return None  # a virtual environment, https://docs.python.org/3/library/venv.html
        return WatchedFolder(folder.root, folder.included or _any(self._includes, folder.root, path))


def _parts(pattern: str) -> tuple[str, ...]:
    """A pattern, split at its slashes; the first part of an absolute path is empty."""
    if pattern.startswith("/"):
        return tuple(os.path.normpath(pattern).split("/"))
    return (
        tuple(os.path.normpath(pattern).split("/")) if "/" in pattern.rstrip("/") else (pattern.rstrip("/"),)
    )


def _any(patterns: tuple[tuple[str, ...], ...], root: str, path: str) -> bool:
    return any(_matches(pattern, root, path) for pattern in patterns)


def _matches(pattern: tuple[str, ...], root: str, path: str) -> bool:
    if len(pattern) == 1:
        return _one(os.path.basename(path), pattern[0])
    if pattern[0] == "":
        return _all(path.split("/"), pattern)
    return _all(path[len(root) :].strip("/").split("/"), pattern)


def _all(parts: list[str], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_all(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and _one(parts[0], pattern[0]) and _all(parts[1:], pattern[1:])


def _one(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (not name.startswith(".") or pattern.startswith("."))


def look(roots: Iterable[str], rules: FileRules) -> Tree:
    """Find every folder and every file that counts. Follow links to folders; read each folder once."""
    tree = Tree()
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[str, WatchedFolder]] = []
    for root in roots:
        if os.path.isdir(root):
            waiting.insert(0, (root, WatchedFolder(root)))
        else:
            tree.missing += (root,)
    linked: list[tuple[str, WatchedFolder]] = []
    while waiting or linked:
        path, folder = waiting.pop() if waiting else linked.pop()  # links last: prefer paths without one
        try:
            facts = os.stat(path)
            entries = list(os.scandir(path))
        except OSError:
            continue  # gone meanwhile, or not readable
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        tree.folders[path] = folder
        for entry in entries:
            _take(tree, rules, folder, entry, linked if entry.is_symlink() else waiting)
    return tree


def _take(
    tree: Tree,
    rules: FileRules,
    folder: WatchedFolder,
    entry: os.DirEntry[str],
    folders: list[tuple[str, WatchedFolder]],
) -> None:
    try:
        if entry.is_dir():
            entered = rules.enter(folder, entry.path)
            if entered is not None:
                folders.append((entry.path, entered))
        elif rules.counts(folder, entry.path):
            tree.files[entry.path] = _stamp(entry.stat())
            if entry.is_symlink():
                tree.links[os.path.realpath(entry.path)] = entry.path
    except OSError:
        pass  # gone meanwhile, or a broken link


def refresh(tree: Tree, path: str) -> None:
    """Note a file's present stamp in the tree."""
    try:
        tree.files[path] = _stamp(os.stat(path))
    except OSError:
        tree.files.pop(path, None)


def _stamp(facts: os.stat_result) -> Stamp:
    return facts.st_mtime_ns, facts.st_size, facts.st_ctime_ns


def changed(before: Mapping[str, Stamp], after: Mapping[str, Stamp]) -> set[str]:
    """The files that are new, gone, or have another time or size."""
    return {
        path for path in before.keys() | after.keys() if before.get(path, ())[:2] != after.get(path, ())[:2]
    }


def changed_since(files: Mapping[str, Stamp], moment: int) -> Iterator[str]:
    """The files that were written, or moved here, after `moment` (nanoseconds since the epoch)."""
    return (path for path, (_, _, ctime) in files.items() if ctime > moment)
