"""What becomes of a request that takes longer than its time limit."""

from __future__ import annotations

LATE = b"504 Gateway Timeout: the application took too long\n"
"""The body of the response, where none had begun."""


class RequestTimeoutError(Exception):
    """The deadline came after the response had begun; the engine closes the connection."""
