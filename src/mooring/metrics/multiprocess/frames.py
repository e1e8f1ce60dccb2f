"""The messages between the supervisor and its helper: see helper.py."""

from __future__ import annotations

import struct

MERGE, FOLD = b"m", b"f"
PAGE, DONE, FAILED, NOTE = b"p", b"d", b"e", b"n"
FRAME = struct.Struct("=cI")
LONGEST = 16 << 20  # bytes of a page
