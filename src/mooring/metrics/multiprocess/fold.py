"""Keep the folder small: fold the files of dead processes into one file for each kind.

A process that is killed while it folds loses no value and counts none twice. The new folded file lists the
names of the files that were folded into it, and replaces the old folded file by rename(2): from that moment
the listed files are not counted, whether they exist or not. Then they are removed. Their names are never used
again (files.retire), and stay in the list as long as the files exist.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterable, Mapping
from contextlib import suppress

from mooring.metrics.multiprocess import files, merge
from mooring.metrics.multiprocess.files import DEATHS, EACH, FOLDED, Content, File

_UNREADABLE = 16  # unreadable files that are kept, so that a person can find out why


def due(contents: Collection[File], dead: Container[str]) -> bool:
    """Whether enough dead processes have left files to fold them: DEATHS."""
    files_of_dead = {file for file in contents if file.gone or file.pid in dead} - merge.latest_dead(contents)
    return len({(file.pid, file.gone) for file in files_of_dead}) >= DEATHS


def dead_strangers(found: Iterable[File]) -> set[str]:
    """The pids of files whose process has ended unnoticed: a subprocess of the application, for example."""
    return {
        pid
        for pid in {file.pid for file in found if not file.gone}
        if pid.isdecimal() and not _alive(int(pid))
    }


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def tidy(folder: int, *, strangers: bool) -> None:
    """Fold the files of dead processes. Raises OSError and UnsettledError; no value is lost then.

    `strangers`: fold also the files of pids that do not exist; only for a folder all of whose writers are in
    this pid namespace.
    """
    if strangers:
        # No new process gets such a pid between the check and the rename: the kernel uses a pid again only
        # after all others.
        for pid in dead_strangers(files.list_files(folder)):
            files.retire(folder, pid)
    found = merge.snapshot(folder)
    for kind in FOLDED:
        _fold(folder, kind, {file: each for file, each in found.contents.items() if file.kind == kind})
    latest = merge.latest_dead(found.contents)
    old = (f for f in found.contents if f.gone and f.kind in EACH and f not in latest)
    bad = sorted((file for file in found.unreadable if file.gone), key=lambda file: file.gone)
    _remove(folder, (file.name for file in (*old, *bad[:-_UNREADABLE])))


def _fold(folder: int, kind: str, contents: Mapping[File, Content]) -> None:
    ended = {file: each for file, each in contents.items() if file.gone or file.folded}
    taken = {file.name for file in ended if not file.folded}
    # Files that were folded before may still exist, where removing them failed or the process was killed.
    earlier = merge.within(ended) & set(os.listdir(folder))
    if not taken:
        _remove(folder, earlier)
        return
    width = max(each.width for each in ended.values())
    values = merge.gather(ended.items())[kind, ""]
    entries = ((key, *part) for key, pairs in values.items() for part in merge.parts(kind, pairs))
    _write(folder, files.folded_name(kind), files.encode(entries, width, taken | earlier))
    _remove(folder, taken | earlier)


def _write(folder: int, name: str, data: bytes) -> None:
    """Write a file and put it in place in one step. Raises OSError; then no new file is left."""
    new = f"{name}.new"
    _remove(folder, [new])  # left by a killed helper
    fd = os.open(
        new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder
    )
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _remove(folder, [new])
        raise
    finally:
        os.close(fd)


def _remove(folder: int, names: Iterable[str]) -> None:
    for name in names:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
