"""The files of prometheus_client's multiprocess mode: their names and their bytes.

Not for adding them up: merge.py.

A process that uses prometheus_client maps one file per kind of metric, named by its pid. The format is the
library's own (prometheus_client/mmap_dict.py), contract-tested here: the number of used bytes (int32, 4 bytes
of padding), then entries: the key's length (int32), the key, 1 to 8 spaces that align the next field to 8
bytes, the value (a double) and, since version 0.18, a timestamp (a double). The key is JSON: [family, name,
labels, help].
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

ADDED = ("counter", "histogram", "summary", "gauge_sum", "gauge_livesum")  # others: merge.reduce
FOLDED = (*ADDED[:-1], "gauge_min", "gauge_max", "gauge_mostrecent")  # dead processes' files become one
LIVE = tuple(f"gauge_live{mode}" for mode in ("all", "min", "max", "sum", "mostrecent"))  # not of the dead
EACH = ("gauge_all", "gauge_liveall")  # have one series for each process
KINDS = (*FOLDED, "gauge_all", *LIVE)

_NAME = re.compile(rf"({'|'.join(KINDS)})_(.+?)(?:\.db_gone-([0-9a-f]{{16}}))?\.db")
DEATHS = 32  # dead processes whose files are in the folder before they are folded

_ALL = "folded"  # in a folded file's name, where others have the pid
_LONGEST = 64 << 20  # bytes; a larger file is not read
_SPACES = b" " * 8
_OPEN, _CLOSE = b"[]"


# The key, the value, and an extra number: a gauge's timestamp, else 0.
FileEntry = tuple[bytes, float, float]


class File(NamedTuple):
    """A file's name, and what the name says: `pid` is digits unless the application sets its own identifiers.

    `gone` is when its process was found dead (hexadecimal, nanoseconds since the epoch); "" while it lives.
    """

    name: str
    kind: str
    pid: str
    gone: str

    @property
    def folded(self) -> bool:
        """Whether it holds the values of dead processes' files, which were folded into it."""
        return self.pid == _ALL


class Content(NamedTuple):
    """A file's entries, the size of a value in bytes (8 or 16), and the names of the files folded into it."""

    entries: list[FileEntry]
    width: int
    within: frozenset[str] = frozenset()


def identify(name: str) -> File | None:
    """What a file name says; None where it is not the name of a metrics file."""
    found = _NAME.fullmatch(name)
    return File(name, found[1], found[2], found[3] or "") if found else None


def list_files(folder: int) -> list[File]:
    """The metrics files in a folder, which is given by its descriptor. Raises OSError."""
    return [file for file in map(identify, os.listdir(folder)) if file is not None]


def folded_name(kind: str) -> str:
    """The name of the file that holds all dead processes' values of this kind."""
    return f"{kind}_{_ALL}.db"


def retire(folder: int, pid: int | str) -> None:
    """Rename a dead process's files, so that a new process with the same pid does not write into them.

    Call it before the process is reaped. prometheus_client's own collector reads the new names like the old
    ones: it takes the kind from the start, and a gauge's pid from the text between the second and the third
    "_", less the last three characters. Files of live gauges are removed. Never raises; 12 system calls.
    """
    mark = f"{time.time_ns():016x}"
    for kind in KINDS:
        name = f"{kind}_{pid}.db"
        with suppress(OSError):  # most kinds have no file
            if kind in LIVE:
                os.unlink(name, dir_fd=folder)
            else:
                os.rename(name, f"{name}_gone-{mark}.db", src_dir_fd=folder, dst_dir_fd=folder)


def retire_in(path: str, pid: int, *, forget: bool = False) -> None:
    """Retire in a folder that is given by its path: for an engine's arbiter, which reaps its workers itself.

    With `forget` all files of the pid are removed: for a process that imported the application only to find
    out its kind.
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
    """The used bytes of a file; of a folded file all bytes. Raises OSError (FileNotFoundError: removed).

    Workers can write to the folder and are not trusted: no link is followed, and no pipe is waited for.
    """
    fd = os.open(file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            raise OSError(f"{file.name} is no regular file of at most {_LONGEST} bytes")
        data = os.read(fd, 4096)
        # A file of the library ends with much unused space; a file of fold.py has none.
        rest = found.st_size if file.folded else _used(data) - len(data)
        while rest > 0 and (more := os.read(fd, rest)):
            data += more
            rest -= len(more)
        return data
    finally:
        os.close(fd)


def parse(data: bytes) -> Content:
    """Parse a file's bytes. Raises ValueError where they are in neither of the two formats."""
    used = _used(data)
    if used < 8:
        return Content([], 16)  # its process has not written to it yet
    for width in (16, 8):
        with suppress(ValueError, TypeError, KeyError, RecursionError, struct.error):
            return Content(_entries(data, used, width), width, _within(data[used:]))
    raise ValueError("not a file of prometheus_client's format")


def _used(data: bytes) -> int:
    return int.from_bytes(data[:4], sys.byteorder, signed=True) if len(data) >= 4 else 0


def _entries(data: bytes, used: int, width: int) -> list[FileEntry]:
    if used > len(data):
        raise ValueError("cut off")
    entries: list[FileEntry] = []
    length_of = struct.Struct("=i").unpack_from
    values_of = struct.Struct("=dd" if width == 16 else "=d").unpack_from
    position = 8
    while position < used:
        (length,) = length_of(data, position)
        end = position + 4 + length
        key = data[position + 4 : end]
        if length < 2 or len(key) != length or key[0] != _OPEN or key[-1] != _CLOSE:
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


def encode(entries: Iterable[FileEntry], width: int, within: Iterable[str]) -> bytes:
    """The bytes of a folded file. After the used ones is mooring's JSON, which prometheus_client ignores."""
    parts = []
    for key, value, extra in entries:
        values = struct.pack("=dd", value, extra)[:width]
        parts.append(struct.pack("=i", len(key)) + key + _SPACES[: 8 - (len(key) + 4) % 8] + values)
    body = b"".join(parts)
    return struct.pack("=i4x", 8 + len(body)) + body + json.dumps({"within": sorted(within)}).encode()
