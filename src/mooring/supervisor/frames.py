"""The stacks that faulthandler wrote, with the application's threads and frames before all others.

Not for asking a worker for them: stacks.py. A frame is the application's if its file is neither Python's nor
mooring's nor an installed package's, but for the package that is the application.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import mooring

_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x", re.MULTILINE)
_LIBRARIES = (str(Path(os.__file__).parent) + os.sep, str(Path(mooring.__file__).parent) + os.sep, "<")
_INSTALLED = re.compile(r"/(?:site|dist)-packages/([^/.]*)")

Own = Callable[[str], bool]


def owner(module: str) -> Own:
    """A function that says whether a line is a frame of the application whose module is `module`."""
    package = module.partition(".")[0]

    def own(line: str) -> bool:
        found = _FRAME.match(line)
        if found is None:
            return False
        installed = _INSTALLED.search(found[1])
        if installed is not None:
            return installed[1] == package
        return not found[1].startswith(_LIBRARIES)

    return own


def arranged(stacks: str, own: Own) -> str:
    """The stacks, those with frames of the application first, and in each these frames before the others."""
    starts = [found.start() for found in _THREAD.finditer(stacks)]
    if not starts:
        return stacks
    ends = [*starts[1:], len(stacks)]
    parts = [stacks[start:end].rstrip("\n").split("\n") for start, end in zip(starts, ends, strict=True)]
    parts.sort(key=lambda lines: not any(map(own, lines)))  # stable: the others keep their order
    return stacks[: starts[0]] + "\n\n".join("\n".join(_own_first(lines, own)) for lines in parts) + "\n"


def place(stacks: str, own: Own) -> str:
    """Where arranged stacks begin, as `FUNCTION (FILE:LINE)`; empty where the application has no frame."""
    for line in stacks.splitlines():
        if own(line) and (found := _FRAME.match(line)) is not None:
            return f"{found[3]} ({found[1]}:{found[2]})"
    return ""


def _own_first(lines: list[str], own: Own) -> list[str]:
    head, *frames = lines
    above = list(takewhile(lambda line: not own(line), frames))
    if not above or len(above) == len(frames):
        return lines
    mine = [line for line in frames if own(line)]
    below = [line for line in frames[len(above) :] if not own(line)]
    return [head, *mine, "  What these called:", *above, *(["  What called these:", *below] if below else [])]
