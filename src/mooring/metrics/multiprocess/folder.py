"""The folder of the workers' metrics: its place, its owner, its removal. Not for the files in it: files.py.

Its mode is 0700, and it belongs to the user that the workers run as. That user is not trusted: root uses the
folder only by its descriptor.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from mooring.logs.log import Log
from mooring.system.accounts import Account

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_DEPRECATED = "prometheus_multiproc_dir"  # prometheus_client still reads it
_PREFIX = "mooring-metrics-"
_ROOM = 4 << 20  # bytes that must be free: a worker that maps a file on a full disk is killed by SIGBUS
_LOOKS = 256  # the most leftover folders that are looked at


class MetricsFolder(NamedTuple):
    """An open folder. `own`: mooring made it, and removes it at the stop."""

    path: str
    fd: int
    own: bool

    def environ(self) -> dict[str, str]:
        """What a worker needs in its environment, before it imports the application."""
        return {VARIABLE: self.path}

    def holds_metrics(self) -> bool:
        """Whether a process has recorded anything; True also where the folder cannot be read now."""
        try:
            with os.scandir(self.fd) as found:
                return any(entry.name.endswith(".db") for entry in found)
        except OSError:
            return True

    def close(self) -> None:
        """Close the folder; where mooring made it, remove it with its files."""
        if self.own:
            _empty(self.fd)
            with suppress(OSError):
                os.rmdir(self.path)
        os.close(self.fd)


def open_folder(
    runtime: str | None, account: Account | None, environ: Mapping[str, str], working: str, log: Log
) -> MetricsFolder | None:
    """The folder that VARIABLE names (relative to the folder `working`); without it, a new folder.

    None, with a warning in the log, where it cannot be opened or made. `runtime` is the instance's folder. It
    is None where there is none, or where another user's workers have to get in: gunicorn may change the user
    itself (see hand_over).
    """
    given = environ.get(VARIABLE) or environ.get(_DEPRECATED)
    if given:
        path = os.path.abspath(os.path.join(working, given))
        try:
            return MetricsFolder(path, _open_given(path, account), False)
        except OSError as error:
            log.warning(
                f"{VARIABLE}={given}: {error.strerror or error}; the application's metrics are not merged"
            )
            return None
    for base, name in _places(runtime, account, environ):
        with suppress(OSError):
            return _make(base, name, account)
    log.warning(
        "no folder can be written to, so the application's metrics are not merged: mount a tmpfs on /tmp, "
        "or set MOORING_APP_METRICS=false"
    )
    return None


def hand_over(path: str, uid: int, gid: int) -> None:
    """Give a folder that mooring made to the user in gunicorn's own configuration. Raises OSError."""
    if os.path.basename(path).startswith(_PREFIX):
        os.chown(path, uid, gid, follow_symlinks=False)


def _open_given(path: str, account: Account | None) -> int:
    made = not os.path.isdir(path)
    os.makedirs(path, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if made:
        _give(fd, account)
    return fd


def _give(fd: int, account: Account | None) -> None:
    if account is not None and account.uid != os.geteuid():
        os.fchown(fd, account.uid, account.gid)


def _places(
    runtime: str | None, account: Account | None, environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Places for a new folder, best first: (base, name). The runtime folder admits no other user."""
    if runtime is not None and (account is None or account.uid == os.geteuid()):
        yield runtime, "metrics"
    for base in (environ.get("TMPDIR", ""), "/dev/shm", "/tmp"):  # noqa: S108 - the folder in it is new and has mode 0700
        if base.startswith("/"):
            with suppress(OSError):
                _remove_leftovers(base)
            yield base, _PREFIX + os.urandom(8).hex()


def _make(base: str, name: str, account: Account | None) -> MetricsFolder:
    room = os.statvfs(base)
    if room.f_bavail * room.f_frsize < _ROOM:
        raise OSError(f"{base} is full")
    path = os.path.join(base, name)
    with suppress(FileExistsError):  # a killed supervisor has left it in the runtime folder
        os.mkdir(path, 0o700)
    fd = _open_ours(path, os.geteuid())
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # while it is held, this is no leftover
        _empty(fd)
        _give(fd, account)
        if not os.path.samestat(os.fstat(fd), os.lstat(path)):
            raise OSError(f"{path} has been replaced")
    except OSError:
        os.close(fd)
        raise
    return MetricsFolder(path, fd, True)


def _open_ours(path: str, uid: int | None) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if uid is not None and os.fstat(fd).st_uid != uid:
        os.close(fd)
        raise OSError(f"{path} is another user's")
    return fd


def _remove_leftovers(base: str) -> None:
    """Remove the folders that killed instances have left. Raises OSError.

    For root: every user's, since root's instances give their folders to other users. Else only this user's.
    """
    uid = None if os.geteuid() == 0 else os.geteuid()
    with os.scandir(base) as found:
        names = [entry.name for entry in found if entry.name.startswith(_PREFIX)]
    for name in names[:_LOOKS]:
        path = os.path.join(base, name)
        with suppress(OSError):
            fd = _open_ours(path, uid)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _empty(fd)
                os.rmdir(path)
            finally:
                os.close(fd)


def _empty(fd: int) -> None:
    """Remove all files in a folder, but no folder in it."""
    with suppress(OSError):
        for name in os.listdir(fd):
            with suppress(OSError):
                if not stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                    os.unlink(name, dir_fd=fd)
