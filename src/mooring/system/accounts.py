"""The user that workers run as: looked up once, checked before anything is started."""

from __future__ import annotations

import os
from typing import NamedTuple

from mooring.errors import ConfigurationError

_MAX_ID = 2**32 - 2  # -1 means "unchanged" to setuid(2)
_CAP_SETGID, _CAP_SETUID, _CAP_KILL = 6, 7, 5  # linux/capability.h


class Account(NamedTuple):
    """A user to become: its ids, its supplementary groups, and the values of USER (`name`) and HOME."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def find(text: str | None) -> Account | None:
    """The account that `MOORING_USER` names (name or uid, optionally :group); None if nothing has to change.

    Raises ConfigurationError for an unknown user, or if this process may not become that user.
    """
    if text is None:
        return None
    import grp
    import pwd

    user, _, group = text.partition(":")
    uid = _number(user, text)
    try:
        entry = pwd.getpwnam(user) if uid is None else pwd.getpwuid(uid)
    except KeyError:
        if uid is None:
            raise ConfigurationError(f"MOORING_USER={text!r}: there is no user {user!r}") from None
        entry = pwd.struct_passwd((user, "x", uid, uid, "", "/", ""))
    gid = entry.pw_gid
    if group:
        try:
            number = _number(group, text)
            gid = grp.getgrnam(group).gr_gid if number is None else number
        except KeyError:
            raise ConfigurationError(f"MOORING_USER={text!r}: there is no group {group!r}") from None
    if os.geteuid() == entry.pw_uid and os.getegid() == gid:
        return None
    _check_right(text)
    known = uid is None or entry.pw_name != user
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if known else (gid,)
    return Account(entry.pw_name, entry.pw_uid, gid, groups, entry.pw_dir or "/")


def _number(part: str, text: str) -> int | None:
    """A numeric id; None for a name. Raises ConfigurationError for a number that is too large."""
    if not (part.isascii() and part.isdigit()):
        return None
    if len(part) > 10 or int(part) > _MAX_ID:
        raise ConfigurationError(
            f"MOORING_USER={text!r}: {part} is no user or group id; the largest is {_MAX_ID}"
        )
    return int(part)


def _check_right(text: str) -> None:
    if os.geteuid() != 0:
        raise ConfigurationError(
            f"MOORING_USER={text!r}: only root can change user, and mooring runs as uid {os.geteuid()}; "
            "start it as root, or leave MOORING_USER unset"
        )
    held = _capabilities()
    needed = {"CAP_SETUID": _CAP_SETUID, "CAP_SETGID": _CAP_SETGID, "CAP_KILL": _CAP_KILL}
    missing = [name for name, bit in needed.items() if not held >> bit & 1]
    if missing:
        raise ConfigurationError(
            f"MOORING_USER={text!r}: the capability {', '.join(missing)} is missing (dropped by the "
            "container?); grant it, or start the container as that user"
        )


def _capabilities() -> int:
    """The effective capabilities as a bit mask, proc(5)."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("CapEff:"):
                    return int(line.split()[1], 16)
    except OSError:
        pass
    return -1
