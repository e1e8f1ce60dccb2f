"""In a worker under live reload: never let bytecode hide a change.

Python takes a .pyc as current where it holds the source's size, and the source's time in whole seconds
(https://docs.python.org/3/reference/import.html, "Cached bytecode invalidation"). If a file is saved twice
within a second with the same size, the first text's bytecode would be run for good. So no .pyc is written for
a file that was saved a moment ago.
"""

from __future__ import annotations

import os
import time
from importlib.machinery import SourceFileLoader
from typing import Any

_MOMENT = 2.0  # seconds: more than the 1 s that a .pyc's time is exact to


def install() -> None:
    """Apply this rule from now on, in this process and its children."""
    write = SourceFileLoader.set_data

    def set_data(self: SourceFileLoader, path: str, data: Any, **options: Any) -> None:
        try:
            fresh = time.time() - os.stat(self.path).st_mtime < _MOMENT
        except OSError:
            fresh = True
        if not fresh:
            write(self, path, data, **options)

    SourceFileLoader.set_data = set_data  # type: ignore[method-assign]
