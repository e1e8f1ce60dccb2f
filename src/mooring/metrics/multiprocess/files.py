"""The files of prometheus_client's multiprocess mode: their names and their bytes. Not what they add up to.

A process that uses prometheus_client maps one file per kind of metric, named by its pid. The format is the
library's own (prometheus_client/mmap_dict.py), contract-tested here: the number of used bytes (int32, 4 bytes
of padding), then entries of a key's length (int32), the key, 1 to 8 spaces that align what follows to 8
bytes, a double and, since version 0.18, a second one. The key is JSON: [family, name, labels, help].
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

ADDED = ("counter", "histogram", "summary", "gauge_sum", "gauge_livesum")  # others are compared, or stand
FOLDED = (*ADDED[:-1], "gauge_min", "gauge_max", "gauge_mostrecent")  # ... of dead ones go into one file
LIVE = tuple(f"gauge_live{mode}" for mode in ("all", "min", "max", "sum", "mostrecent"))  # forget the dead
EACH = ("gauge_all", "gauge_liveall")  # a series for each process
KINDS = (*FOLDED, "gauge_all", *LIVE)

_NAME = re.compile(rf"({'|'.join(KINDS)})_(.+?)(?:\.db_gone-([0-9a-f]{{16}}))?\.db")
DEATHS = 32  # so many dead processes' files may lie there before they are folded

_ALL = "folded"  # in place of the pid
_LONGEST = 64 << 20  # bytes of a file that are read at most
_SPACES = b" " * 8
_OPEN, _CLOSE = b"[]"


# Key, value, and what comes with it: a gauge's timestamp, or what merge.py keeps there in a folded file.
Sample = tuple[bytes, float, float]


class File(NamedTuple):
    """A file's name, and what it says: `pid` is digits unless the application has its own identifiers.

    `gone` is the moment (hexadecimal, nanoseconds) at which its process was known to be dead; "" before.
    """

    name: str
    kind: str
    pid: str
    gone: str

    @property
    def folded(self) -> bool:
        """Whether it holds what others have held."""
        return self.pid == _ALL


class Content(NamedTuple):
    """A file's entries, the bytes of a value (8 or 16), and the names of the files folded into it."""

    entries: list[Sample]
    width: int
    within: frozenset[str] = frozenset()


def identify(name: str) -> File | None:
    """What a file name says; None for a name that is no metrics file's."""
    found = _NAME.fullmatch(name)
    return File(name, found[1], found[2], found[3] or "") if found else None


def list_files(folder: int) -> list[File]:
    """The metrics files in a folder, by descriptor. Raises OSError."""
    return [file for file in map(identify, os.listdir(folder)) if file is not None]


def folded_name(kind: str) -> str:
    """The file that stands for all dead processes."""
    return f"{kind}_{_ALL}.db"


def retire(folder: int, pid: int | str) -> None:
    """Rename a dead process's files, so that none of them is taken up by a process that gets its pid.

    To be called before the pid is reaped. prometheus_client's own collector reads the new names as it did the
    old ones: the kind from the start, and a gauge's pid from between the second "_" and the next three
    characters from the end of that part. Never raises; costs 12 system calls.
    """
    mark = f"{time.time_ns():016x}"
    for kind in KINDS:
        name = f"{kind}_{pid}.db"
        with suppress(OSError):  # most are not there
            if kind in LIVE:
                os.unlink(name, dir_fd=folder)
            else:
                os.rename(name, f"{name}_gone-{mark}.db", src_dir_fd=folder, dst_dir_fd=folder)


def retire_in(path: str, pid: int, *, forget: bool = False) -> None:
    """The same for a folder by its path: for gunicorn's arbiter, whose workers are its own to reap.

    With `forget` nothing is kept: for a process that has only imported the application, to see what it is.
    """
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for kind in KINDS if forget else ():
                with suppress(OSError):
                    os.unlink(f"{kind}_{pid}.db", dir_fd=folder)
            retire(folder, pid)
        finally:
            os.close(folder)


def read(folder: int, file: File) -> bytes:
    """The used bytes of a file; all of a folded one. Raises OSError, FileNotFoundError among them.

    Workers may write to the folder and are not trusted: no link is followed, no pipe waited for.
    """
    fd = os.open(file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            raise OSError(f"{file.name} is no regular file of at most {_LONGEST} bytes")
        data = os.read(fd, 4096)
        # What the library writes is mostly empty room at its end; what fold.py writes has none.
        rest = found.st_size if file.folded else _used(data) - len(data)
        while rest > 0 and (more := os.read(fd, rest)):
            data += more
            rest -= len(more)
        return data
    finally:
        os.close(fd)


def parse(data: bytes) -> Content:
    """What a file holds. Raises ValueError where it is none of the two formats."""
    used = _used(data)
    if used < 8:
        return Content([], 16)  # its process has not come to it yet
    for width in (16, 8):
        with suppress(ValueError, TypeError, KeyError, RecursionError, struct.error):
            return Content(_entries(data, used, width), width, _within(data[used:]))
    raise ValueError("not a file of prometheus_client's format")


def _used(data: bytes) -> int:
    return int.from_bytes(data[:4], sys.byteorder, signed=True) if len(data) >= 4 else 0


def _entries(data: bytes, used: int, width: int) -> list[Sample]:
    if used > len(data):
        raise ValueError("cut off")
    entries: list[Sample] = []
    length_of = struct.Struct("=i").unpack_from
    values_of = struct.Struct("=dd" if width == 16 else "=d").unpack_from
    position = 8
    while position < used:
        (length,) = length_of(data, position)
        end = position + 4 + length
        key = data[position + 4 : end]
        if length < 2 or key[0] != _OPEN or key[-1] != _CLOSE:
            raise ValueError("no key")
        position = end + 8 - end % 8
        if width == 16:
            value, extra = values_of(data, position)
        else:
            (value,), extra = values_of(data, position), 0.0
        entries.append((key, value, extra))
        position += width
    if position != used:
        raise ValueError("the last entry is cut off")
    return entries


def _within(rest: bytes) -> frozenset[str]:
    if not rest.startswith(b"{"):
        return frozenset()
    return frozenset(json.loads(rest)["within"])


def encode(entries: Iterable[Sample], width: int, within: Iterable[str]) -> bytes:
    """The bytes of a file. What follows the used ones is ours: prometheus_client does not read it."""
    parts = []
    for key, value, extra in entries:
        values = struct.pack("=dd", value, extra)[:width]
        parts.append(struct.pack("=i", len(key)) + key + _SPACES[: 8 - (len(key) + 4) % 8] + values)
    body = b"".join(parts)
    return struct.pack("=i4x", 8 + len(body)) + body + json.dumps({"within": sorted(within)}).encode()
