"""Find the cgroups that bind this process, as folders to read: its own first, then every visible ancestor.

Sources: cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5), and the kernel's
Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst. Not for what the files in those folders mean:
limits.py and usage.py.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MEMBERSHIP = "/proc/self/cgroup"
MOUNTS = "/proc/self/mountinfo"
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
# The four characters that the kernel writes as octal escapes in mountinfo; the backslash must be the last.
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


@dataclass(frozen=True, slots=True)
class CgroupFiles:
    """Reads files below a root folder, by the absolute name the process sees; collects warnings."""

    root: Path
    warnings: list[str] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        """The file's content, or None when it is absent (silently) or unreadable (with a warning)."""
        try:
            content = (self.root / name.lstrip("/")).read_bytes()
        except OSError as error:
            if error.errno not in _ABSENT:
                self.warn(f"{name} cannot be read: {error.strerror or error}")
            return None
        return content.decode("utf-8", "backslashreplace")

    def is_folder(self, name: str) -> bool:
        """Whether the folder exists and is accessible."""
        try:
            return (self.root / name.lstrip("/")).is_dir()
        except (OSError, ValueError):
            return False

    def reject(self, name: str, content: str, expected: str) -> None:
        """Note that a file's content makes no sense; the caller goes on without it."""
        shown = content.strip()
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        self.warn(f"{name} is ignored: expected {expected}, found {shown!r}")

    def warn(self, line: str) -> None:
        """Note one line, once."""
        if line not in self.warnings:
            self.warnings.append(line)


class Mount(NamedTuple):
    """One mounted cgroup hierarchy: `root` is the cgroup that is seen at the folder `point`."""

    version: int
    root: str
    point: str
    controllers: frozenset[str]


class Hierarchy(NamedTuple):
    """Where one controller's files are: `folders`, own cgroup first; `why_not` if there are none."""

    version: int
    folders: tuple[str, ...]
    why_not: str


class Cgroups(NamedTuple):
    """The process's memberships (controller to path, "" for version 2) and the mounted hierarchies."""

    files: CgroupFiles
    paths: dict[str, str]
    mounts: tuple[Mount, ...]

    @classmethod
    def find(cls, files: CgroupFiles) -> Cgroups:
        """Read /proc/self/cgroup and /proc/self/mountinfo below the files' root."""
        return cls(files, _memberships(files), _mounts(files))

    def hierarchy(self, controller: str) -> Hierarchy:
        """Where the controller (cpu, cpuset, memory) has its files for this process.

        A controller belongs to one version at a time (cgroups(7)). So if version 1 lists or mounts it, the
        unified tree of a hybrid system has no files of it.
        """
        first = [mount for mount in self.mounts if mount.version == 1 and controller in mount.controllers]
        if first or controller in self.paths:
            folders = self._folders(first, self.paths.get(controller, "/"))
            return Hierarchy(1, folders, f"the cgroup v1 controller {controller} is not mounted")
        second = [mount for mount in self.mounts if mount.version == 2]
        folders = self._folders(second, self.paths.get("", "/"))
        if not self.mounts and not self.paths:
            return Hierarchy(2, (), f"no cgroups: nothing in {MEMBERSHIP} and {MOUNTS}")
        return Hierarchy(2, folders, f"the cgroup controller {controller} is not mounted")

    def _folders(self, mounts: list[Mount], path: str) -> tuple[str, ...]:
        places = [(place, mount) for mount in mounts if (place := _place_in(self.files, mount, path))]
        if not places:
            return ()
        # Best is the mount that holds the path as it is written, then the one that shows the most ancestors.
        place, mount = min(places, key=lambda it: (not it[0].inside, it[0].skipped, len(it[1].root)))
        if not place.inside and ".." in f"{mount.root}{path}":
            self.files.warn(
                f"{MEMBERSHIP} and {MOUNTS} don't show where {path} is below {mount.point} (mounted from "
                f"{mount.root}): limits may be missed"
            )
        return _upwards(place.folder, mount.point)


class _Place(NamedTuple):
    folder: str
    inside: bool  # the mount's root is the path or one of its ancestors, by name
    skipped: int  # leading names of the path that had to be left out


def _place_in(files: CgroupFiles, mount: Mount, path: str) -> _Place | None:
    """The folder of the cgroup `path` below a mount.

    If the mount's root is not above the path, or if the path is written as the host sees it while the mount
    shows the container's own cgroup as its root, leading names are left out until a folder exists. The last
    folder that is tried is the mount point itself.
    """
    names, top = _names(path), _names(mount.root)
    inside = names[: len(top)] == top and ".." not in names[len(top) :]
    names = names[len(top) :] if inside else [name for name in names if name != ".."]
    for skipped in range(len(names) + 1):
        folder = "/".join([mount.point.rstrip("/"), *names[skipped:]])
        if files.is_folder(folder):
            return _Place(folder, inside, skipped)
    return None


def _upwards(folder: str, top: str) -> tuple[str, ...]:
    below = _names(folder)[len(_names(top)) :]
    return tuple("/".join([top.rstrip("/"), *below[:depth]]) for depth in range(len(below), -1, -1))


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _memberships(files: CgroupFiles) -> dict[str, str]:
    paths: dict[str, str] = {}
    for line in (files.text(MEMBERSHIP) or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not (number.isdigit() and colon and path.startswith("/")):
            files.reject(MEMBERSHIP, line, "NUMBER:CONTROLLERS:/PATH")
            continue
        for controller in controllers.split(","):
            paths.setdefault(controller, path)
    return paths


def _mounts(files: CgroupFiles) -> tuple[Mount, ...]:
    """The cgroup mounts; of several mounts on one folder only the last, which hides the others."""
    seen: dict[str, Mount] = {}
    for line in (files.text(MOUNTS) or "").splitlines():
        if " - cgroup" not in line:
            continue
        # ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG:VALUE]... - TYPE DEVICE OPTIONS
        left, _, right = line.partition(" - ")
        here, there = left.split(" "), right.split(" ")
        if len(here) < 6 or len(there) < 3 or there[0] not in ("cgroup", "cgroup2"):
            files.reject(MOUNTS, line, "a line as in proc_pid_mountinfo(5)")
            continue
        root, point = _unescape(here[3]), _unescape(here[4])
        version = 2 if there[0] == "cgroup2" else 1
        seen.pop(point, None)
        seen[point] = Mount(version, root, point, frozenset(there[2].split(",")))
    return tuple(seen.values())


def _unescape(text: str) -> str:
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    return text
