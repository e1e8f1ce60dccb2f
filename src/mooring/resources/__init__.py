"""What this machine or container really offers: CPU quota, cpuset, memory limit, and where each was read.

`read` answers once, for the plan; `cpu_throttled_seconds`, `memory_current` and `oom_kills` answer again and
again, for the metrics; `memory_rooms` before workers are started beside others. All take the root folder as
an argument and never raise for what they find in it. What to do with the answers (how many workers) is not
decided here: that is plan/plan.py.
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
