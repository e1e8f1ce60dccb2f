"""The folder of the workers' metrics: where it is, whose it is, and that it goes. Not what is in it.

It is the workers' user's, mode 0700. That user is not trusted: root works on it by descriptor only.
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
_DEPRECATED = "prometheus_multiproc_dir"  # prometheus_client still heeds it
_PREFIX = "mooring-metrics-"
_ROOM = 4 << 20  # bytes: where less is free, a worker that maps a file there could be killed by SIGBUS
_LOOKS = 256  # at leftovers


class MetricsFolder(NamedTuple):
    """An open folder; `own`: mooring made it, and removes it."""

    path: str
    fd: int
    own: bool

    def environ(self) -> dict[str, str]:
        """What a worker needs in its environment, before it imports the application."""
        return {VARIABLE: self.path}

    def holds_metrics(self) -> bool:
        """Whether any process has recorded anything; also where that cannot be seen now."""
        try:
            with os.scandir(self.fd) as found:
                return any(entry.name.endswith(".db") for entry in found)
        except OSError:
            return True

    def close(self) -> None:
        """Close it; remove it where it is ours."""
        if self.own:
            _empty(self.fd)
            with suppress(OSError):
                os.rmdir(self.path)
        os.close(self.fd)


def open_folder(
    runtime: str | None, account: Account | None, environ: Mapping[str, str], working: str, log: Log
) -> MetricsFolder | None:
    """The folder that the variable names, from the folder `working` on; else one of ours.

    None, with a warning, where none can be made. `runtime` is the instance's folder, if it has one, and if no
    user but this one has to get into it (gunicorn changes the user itself: see hand_over).
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
    """Make a folder of ours that user's, whom gunicorn's own configuration names. Raises OSError."""
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
    """Where it can be, best first. The runtime folder lets no other user in."""
    if runtime is not None and (account is None or account.uid == os.geteuid()):
        yield runtime, "metrics"
    for base in (environ.get("TMPDIR", ""), "/dev/shm", "/tmp"):  # noqa: S108 - made new, mode 0700
        if base.startswith("/"):
            with suppress(OSError):
                _remove_leftovers(base)
            yield base, _PREFIX + os.urandom(8).hex()


def _make(base: str, name: str, account: Account | None) -> MetricsFolder:
    room = os.statvfs(base)
    if room.f_bavail * room.f_frsize < _ROOM:
        raise OSError(f"{base} is full")
    path = os.path.join(base, name)
    with suppress(FileExistsError):  # in the runtime folder, after a kill
        os.mkdir(path, 0o700)
    fd = _open_ours(path, os.geteuid())
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as long as this is held, it is no leftover
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
    """Remove what killed instances of the same user have left; root's can have been any. Raises OSError."""
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
    """Remove all files; no folder, and nothing elsewhere."""
    with suppress(OSError):
        for name in os.listdir(fd):
            with suppress(OSError):
                if not stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                    os.unlink(name, dir_fd=fd)
