"""Whether mooring was started here, or is about to be: for an image's health check.

Other commands run in the same images: celery, a shell, a server that the application starts itself. Asked
is what the processes' command lines name, and what the shell script that process 1 runs names: it may still
be at work before it starts mooring.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_NAMES = re.compile(
    rb"(^|[\s/;&|('\"])(mooring|start(-reload)?\.sh|start_gunicorn\.sh)(?![\w./-])", re.MULTILINE
)
_SHELLS = re.compile(rb"#! *\S*/(env +)?(ba|da|a)?sh\b")
_LONGEST = 65536  # bytes of a script that are read


def was_started(proc: str = "/proc") -> bool:
    """Whether some other process is mooring, or process 1 is to start it."""
    own = os.getpid()
    pids = (int(name) for name in os.listdir(proc) if name.isdigit())
    if any(_NAMES.search(b" ".join(_words(proc, pid))) for pid in pids if pid != own):
        return True
    return any(_NAMES.search(text) for text in _scripts(proc))


def _words(proc: str, pid: int) -> list[bytes]:
    return _read(f"{proc}/{pid}/cmdline").rstrip(b"\0").split(b"\0")


def _scripts(proc: str) -> Iterator[bytes]:
    """The shell scripts among process 1's arguments."""
    for word in _words(proc, 1)[:4]:
        path = os.path.join(os.fsencode(proc), b"1/root", word.lstrip(b"/"))
        if not word.startswith(b"/"):
            path = os.path.join(os.fsencode(proc), b"1/cwd", word)
        text = _read(path) if os.path.isfile(path) else b""
        if _SHELLS.match(text):
            yield text


def _read(path: str | bytes) -> bytes:
    """A file's content; empty where it has gone, or is another user's."""
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST)
    except OSError:
        return b""
