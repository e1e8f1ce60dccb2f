"""Functions as they were before gevent's patching: what mooring does beside the application stays in real
threads.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def native(module: str, name: str) -> Any:
    """The function of that name, whether or not gevent has put another in its place."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(importlib.import_module(module), name)
