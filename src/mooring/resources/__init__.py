"""What this machine or container really offers: CPU quota, cpuset, memory limit, and where each was read.

`read` is called once, for the plan; `cpu_throttled_seconds`, `memory_current` and `oom_kills` repeatedly, for
the metrics; `memory_rooms` before a roll starts workers beside those that serve. All take the root folder as
an argument and never raise for what they find in it. Not for deciding how many workers there are:
plan/plan.py.
"""

from __future__ import annotations

from mooring.resources.model import Reading, Resources
from mooring.resources.reader import read
from mooring.resources.room import Room, memory_rooms
from mooring.resources.usage import cpu_throttled_seconds, memory_current, oom_kills

__all__ = [
    "Reading",
    "Resources",
    "Room",
    "cpu_throttled_seconds",
    "memory_current",
    "memory_rooms",
    "oom_kills",
    "read",
]
