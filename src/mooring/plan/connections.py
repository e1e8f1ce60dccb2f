"""How many connections a worker takes, where the user sets no number. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mooring.resources import Resources

_MOST, _LEAST = 10_000, 64
_SPARE = 4  # a worker's own files, and what the application opens, have one in so many descriptors
_EACH = 64 * 1024  # bytes that a connection may well hold: a head, a part of a body, buffers
_SHARE = 4  # connections may have one part in so many of the memory
_MIB = 1024 * 1024


def most(resources: Resources, workers: int) -> tuple[int, str]:
    """The most connections of each of so many workers, and the reason in words."""
    limits = [(_MOST, "the most that is tuned")]
    descriptors = resources.descriptors
    if descriptors.value is not None:
        usable = descriptors.value - descriptors.value // _SPARE
        limits.append((usable, f"three quarters of {descriptors.value} descriptors ({descriptors.source})"))
    memory = resources.memory_limit if resources.memory_limit.value else resources.host_memory
    if memory.value:
        share = memory.value // (workers * _SHARE)
        text = (
            f"64 KiB each, in a quarter of {memory.value // _MIB} MiB ({memory.source}) for {workers} workers"
        )
        limits.append((share // _EACH, text))
    wanted, reason = min(limits)
    return (wanted, reason) if wanted >= _LEAST else (_LEAST, f"at least {_LEAST}; {reason}")
