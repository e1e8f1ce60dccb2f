"""In a worker under live reload: never let bytecode hide a change.

A .pyc is taken for current where the source's time, in whole seconds, and size are those that it holds
(https://docs.python.org/3/reference/import.html, "Cached bytecode invalidation"). Saved twice within a second
with the same size, the first text's bytecode would be run for good. So none is written for a file that was
saved a moment ago.
"""

from __future__ import annotations

import os
import time
from importlib.machinery import SourceFileLoader
from typing import Any

_MOMENT = 2.0  # seconds: more than the one that a .pyc cannot tell apart


def install() -> None:
    """From here on, in this process and its children."""
    write = SourceFileLoader.set_data

    def set_data(self: SourceFileLoader, path: str, data: Any, **options: Any) -> None:
        try:
            fresh = time.time() - os.stat(self.path).st_mtime < _MOMENT
        except OSError:
            fresh = True
        if not fresh:
            write(self, path, data, **options)

    SourceFileLoader.set_data = set_data  # type: ignore[method-assign]
