"""An application's failure at boot, as one line and as a traceback without mooring's frames."""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType

import mooring
from mooring.errors import ApplicationError

_LONGEST = 300
_OURS = str(Path(mooring.__file__).parent) + os.sep
_MACHINERY = (
    _OURS,
    "<frozen importlib",
    "<frozen runpy",
    str(Path(importlib.__file__).parent) + os.sep,
    runpy.__file__,
)


class BootError(ApplicationError):
    """The application failed to boot. `traceback` starts at the application's first frame, or is empty."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


def failure(doing: str, error: BaseException, search: tuple[Path, ...]) -> BootError:
    """The application's error as `DOING: ValueError: text (/app/main.py:3)`, with its traceback.

    Raises the error itself if mooring raised it, such as a SystemExit. A worker ignores SIGINT, so a
    KeyboardInterrupt comes from the application too.
    """
    if not isinstance(error, Exception) and _raised_by_us(error):
        raise error
    text = own_traceback(error)
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        where = f" ({error.filename}:{error.lineno or 1})"
        return BootError(f"{doing}: {type(error).__name__}: {one_line(error.msg)}{where}", text)
    where = place(error, search)
    if isinstance(error, SystemExit):
        code = "" if error.code is None else one_line(repr(error.code))
        return BootError(f"{doing}: it called sys.exit({code}){where}", text)
    message = one_line(error)
    return BootError(f"{doing}: {type(error).__name__}{': ' if message else ''}{message}{where}", text)


def place(error: BaseException, search: tuple[Path, ...]) -> str:
    """Where it was raised, as ` (FILE:LINE)`: the innermost frame in the application's files, else of all."""
    found = frames(error)
    own = [line for line in found if _is_own(line[0], search)] or found
    return f" ({own[-1][0]}:{own[-1][1]})" if own else ""


def frames(error: BaseException) -> list[tuple[str, int]]:
    """File and line of each frame of the application's part of the traceback, outermost first."""
    found = []
    current = _cut(error.__traceback__)
    while current is not None:
        found.append((current.tb_frame.f_code.co_filename, current.tb_lineno))
        current = current.tb_next
    return [(file, line) for file, line in found if not file.startswith("<frozen ")]


def _raised_by_us(error: BaseException) -> bool:
    """Whether the innermost frame is mooring's own (a signal handler's, say), but not of this package."""
    current = error.__traceback__
    while current is not None and current.tb_next is not None:
        current = current.tb_next
    if current is None or not current.tb_frame.f_code.co_filename.startswith(_OURS):
        return False
    # This package imports and calls the application, so its frames do not count.
    return current.tb_frame.f_globals.get("__package__") != __package__


def own_traceback(error: BaseException) -> str:
    """The traceback from the application's first frame on; "" if the application has no frame in it."""
    if not frames(error) and not isinstance(error, SyntaxError):
        return ""
    chain: list[BaseException] = [error]
    for each in chain:
        each.__traceback__ = _cut(each.__traceback__)
        related = [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
        chain += [other for other in related if isinstance(other, BaseException) and not _among(other, chain)]
    return "".join(traceback.format_exception(error))


def _among(error: BaseException, others: list[BaseException]) -> bool:
    return any(error is other for other in others)


def _cut(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of mooring and of the import system at its top."""
    while trace is not None and _is_machinery(trace.tb_frame):
        trace = trace.tb_next
    return trace


def _is_machinery(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_MACHINERY)


def _is_own(file: str, search: tuple[Path, ...]) -> bool:
    """Whether a file is the application's: below a search folder, and not an installed package's."""
    below = any(file.startswith(str(folder) + os.sep) for folder in search)
    return below and not file.startswith(_library()) and f"{os.sep}site-packages{os.sep}" not in file


@functools.cache
def _library() -> str:
    return str(Path(os.__file__).parent) + os.sep


def one_line(value: object) -> str:
    """An exception's text on one line, without control characters, cut to 300 characters."""
    try:
        text = " ".join(str(value).split())
    except Exception:
        return "(its text cannot be shown)"
    text = "".join(part if part.isprintable() else part.encode("unicode_escape").decode() for part in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def interpreter() -> str:
    """The running Python, for a message about a module that is not installed: `Python 3.13 in /venv`."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor} in {sys.prefix}"
