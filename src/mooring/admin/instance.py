"""The folder and the control socket by which one instance is found, and the list of all instances.

Not for the requests on the socket: server.py. Folders are <base>/<name>, with mode 0700, and are checked to
be this user's. Where no folder can be written, an abstract socket takes its place; it has no file mode, so
the peer's credentials are checked.
"""

from __future__ import annotations

import binascii
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from mooring.errors import ConfigurationError
from mooring.settings.table import Settings
from mooring.system.address import Address
from mooring.system.sockets import UNIX_PATH_MAX, peer_credentials, socket_state, who

CONTROL = "control.sock"
SYSTEM_BASE = "/run/mooring"
TEMPORARY = "/tmp"  # noqa: S108 - the owner and mode of folders in it are checked


@dataclass(slots=True)
class InstanceFolder:
    """One instance's folder and control socket: `path` is None where no folder can be made; `socket` listens.

    An `owned` folder was made by mooring, and is removed with its contents at the stop. A forked worker has
    to close `socket`; else the instance looks alive after its supervisor has ended.
    """

    name: str
    path: str | None
    address: str
    socket: socket.socket
    owned: bool = False
    warning: str = ""  # why no folder was taken, where that is not what one would expect

    def close(self) -> None:
        """Close the socket; remove its file and, where it is owned, the folder with all its contents."""
        self.socket.close()
        if self.path is None:
            return
        # Locked, so that an instance of the same name that starts now finds all of the folder or nothing.
        with suppress(OSError), _locked(self.path):
            if socket_state(self.address)[0] == "stale":  # else the new instance has already bound it
                os.unlink(self.address)
                if self.owned:
                    import shutil  # here, because it takes 5 ms, which a start does not need to spend

                    shutil.rmtree(self.path)


class Instance(NamedTuple):
    """An instance that was found; its `socket` is a path, or an abstract address, which starts with a NUL."""

    name: str
    socket: str
    alive: bool


def open_instance(settings: Settings, first_listener: Address, environ: Mapping[str, str]) -> InstanceFolder:
    """Make this instance's folder and control socket.

    Raises ConfigurationError where an instance of this name runs already, and where MOORING_RUNTIME_DIR is a
    folder that cannot be used: a link, another user's, or open to others. Any other such folder is not used.
    """
    name, warning = instance_name(settings, first_listener), ""
    for base, required in _bases(settings, environ):
        try:
            return replace(_open_in(base, name, strict=not required), warning=warning)
        except OSError as error:
            if required:
                raise ConfigurationError(f"runtime folder {base}: {error.strerror or error}") from None
            if error.errno == errno.EPERM:
                warning = f"{error.strerror}; another place for the control socket was taken"
    address = _abstract(_fitting(name, UNIX_PATH_MAX - len(_abstract(""))))
    return InstanceFolder(name, None, address, _listen(address, name), warning=warning)


def list_instances(settings: Settings, environ: Mapping[str, str]) -> list[Instance]:
    """All instances of this user, sorted by name; one that is not alive was left by a killed supervisor."""
    found: dict[str, Instance] = {}
    for base, _ in _bases(settings, environ):
        for name in os.listdir(base) if os.path.isdir(base) and os.access(base, os.R_OK) else ():
            path = os.path.join(base, name, CONTROL)
            if _ours(os.path.dirname(path), 0o077) and (state := socket_state(path)[0]) in ("live", "stale"):
                found[path] = Instance(name, path, state == "live")
    for address in _abstract_sockets():
        found[address] = Instance(address.removeprefix(_abstract("")), address, True)
    return sorted(found.values(), key=lambda instance: instance.name)


def connect(instance: Instance, timeout: float = 5.0) -> socket.socket:
    """Connect to an instance's control socket. Raises ConfigurationError where it cannot be reached."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(instance.socket)
        if peer_allowed(sock, os.geteuid()):
            return sock
        reason = "another user's process answers in its place"
    except OSError as error:
        reason = error.strerror or str(error)
    sock.close()
    raise ConfigurationError(f"instance {instance.name} cannot be reached: {reason}")


def peer_allowed(sock: socket.socket, uid: int) -> bool:
    """Whether the peer of a unix connection is the user `uid` or root."""
    return peer_credentials(sock)[1] in (uid, 0)


def instance_name(settings: Settings, first_listener: Address) -> str:
    """MOORING_NAME, or the first listener as a file name (127.0.0.1-8000)."""
    return _name_of(first_listener) if settings.name is None else settings.name


def _name_of(address: Address) -> str:
    if address.kind == "tcp":
        return _plain(f"{(address.host or '0.0.0.0').replace(':', '_')}-{address.port}")
    path = os.path.abspath(address.path).strip("/")
    name = _plain(path.replace("/", "-")).lstrip(".-")
    # the checksum keeps two paths from having the same name
    return name if name.replace("-", "/") == path else f"{name}-{_checksum(path)}"


def _plain(text: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in text)


def _checksum(text: str) -> str:
    return f"{binascii.crc32(os.fsencode(text)):08x}"


def _fitting(name: str, room: int) -> str:
    """The name; a longer one is cut to `room` bytes, checksum included. Raises OSError for a small `room`."""
    if len(name) <= room:
        return name
    if room < 12:  # the fewest that hold some letters and the checksum
        raise OSError(errno.ENAMETOOLONG, f"too long for a unix socket's path ({UNIX_PATH_MAX} bytes)")
    return f"{name[: room - 9]}-{_checksum(name)}"


def _abstract(name: str) -> str:
    return f"\0mooring-{os.geteuid()}-{name}"


def _bases(settings: Settings, environ: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """The folders that may hold instances' folders, best first; with each, whether the settings name it."""
    if settings.runtime_dir is not None:
        yield os.path.abspath(settings.runtime_dir), True
        return
    if os.geteuid() == 0 or _ours(SYSTEM_BASE, 0o022):
        yield SYSTEM_BASE, False
    session = environ.get("XDG_RUNTIME_DIR", "")
    if session.startswith("/"):
        yield os.path.join(session, "mooring"), False
    yield f"{TEMPORARY}/mooring-{os.geteuid()}", False


def _ours(folder: str, forbidden: int) -> bool:
    """Whether it is a folder and no link, is this user's, and has none of the permission bits `forbidden`."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & forbidden


def _make(folder: str, forbidden: int) -> bool:
    """Make a folder of mode 0700, or check the one that exists. Returns whether it was made.

    Raises OSError, which is PermissionError with EPERM where the one that exists is not safe.
    """
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if _ours(folder, forbidden):
            return False
        os.lstat(folder)  # raises FileNotFoundError where a stopping instance has just removed it
        raise PermissionError(
            errno.EPERM,
            f"{folder} is a link, another user's, or open to others (chmod 700): remove it, or choose "
            "another with MOORING_RUNTIME_DIR",
        ) from None
    return True


def _open_in(base: str, name: str, strict: bool) -> InstanceFolder:
    """Open the instance's folder. A `strict` base holds only instances, and no other user may write to it."""
    folder = os.path.join(base, _fitting(name, UNIX_PATH_MAX - len(os.fsencode(f"{base}//{CONTROL}"))))
    path = os.path.join(folder, CONTROL)
    if strict:
        _make(base, 0o022)
    else:
        os.makedirs(base, 0o700, exist_ok=True)
    for _ in range(100):
        try:
            made = _make(folder, 0o077)
            with _locked(folder):
                if socket_state(path)[0] == "stale":
                    os.unlink(path)  # other files that a killed supervisor left stay until the next stop
                return InstanceFolder(
                    os.path.basename(folder), folder, path, _listen(path, name), strict or made
                )
        except FileNotFoundError:
            continue  # a stopping instance has removed the folder: see _make
    raise OSError(errno.ENOENT, f"{folder} vanishes again and again")


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Lock the folder, so that no other instance checks or binds its socket meanwhile. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(fd), os.lstat(folder)):
            raise FileNotFoundError(folder)  # it was removed and made again during the wait
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # closing is not enough: a forked child may have the descriptor
        os.close(fd)


def _listen(address: str, name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
        sock.listen(16)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise ConfigurationError(
            f"an instance named {name} is running already{who(socket_state(address)[1])}; stop it, or choose "
            "another MOORING_NAME"
        ) from None
    sock.setblocking(False)
    return sock


def _abstract_sockets() -> Iterator[str]:
    """The abstract control sockets of this user that listen: proc(5), /proc/net/unix, __SO_ACCEPTCON."""
    prefix = _abstract("").replace("\0", "@")
    with suppress(OSError), open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        for row in map(str.split, file):
            if len(row) == 8 and row[3] == "00010000" and row[7].startswith(prefix):
                yield "\0" + row[7][1:]
