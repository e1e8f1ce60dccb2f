"""Functions as they were before gevent patched them: what mooring runs beside the application needs real
threads.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def native(module: str, name: str) -> Any:
    """The function `name` of `module`: the original one, even if gevent has replaced it."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(importlib.import_module(module), name)
