"""Which standard descriptors were closed at mooring's start (`mooring run >&-`): /dev/null is there now."""

from __future__ import annotations

import os

closed: set[int] = set()


def without_reader() -> int:
    """A descriptor that takes nothing: who writes to it learns that it is lost. Raises OSError."""
    read, write = os.pipe()
    os.close(read)
    return write
