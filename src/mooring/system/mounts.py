"""Which folders are on file systems that send no notifications of changes, from /proc/self/mountinfo."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# Changes made on the other side (a server, the host of a virtual machine) make no inotify event, inotify(7).
_SILENT = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "glusterfs", "fuse", "virtiofs"),
        *("vboxsf", "vmhgfs", "prl_fs", "prl_vfs", "drvfs", "lustre", "beegfs"),
    )
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def silent(folders: Iterable[str], mountinfo: Path = Path("/proc/self/mountinfo")) -> tuple[str, str] | None:
    """The first of `folders` (absolute) that is on such a file system, and that one's type; else None."""
    mounts = _mounts(mountinfo)
    for folder in folders:
        kind = _kind(folder, mounts)
        if kind.split(".")[0] in _SILENT:  # fuse.sshfs
            return folder, kind
    return None


def _mounts(mountinfo: Path) -> list[tuple[str, str]]:
    """Mount points and types as in proc(5), the latest first; empty if the file cannot be read."""
    try:
        lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")[0]
        if len(fields) >= 5 and kind:
            found.append((_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]), kind))
    return found[::-1]


def _kind(folder: str, mounts: list[tuple[str, str]]) -> str:
    """The type of the deepest mount above a folder; of several on one mount point, that of the latest."""
    best, kind = "", ""
    for point, mount_kind in mounts:
        above = folder == point or folder.startswith(point.rstrip("/") + "/")
        if above and len(point) > len(best):
            best, kind = point, mount_kind
    return kind
