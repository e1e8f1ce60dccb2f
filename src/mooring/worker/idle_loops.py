"""Names the tasks that wait on an event loop which nothing runs: they were made at the application's import.

Where an engine can run the loop that the application has made, it does (engines/common/event_loop.py).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from mooring.logs.log import Log

_SHOWN = 5  # tasks that are named


def warn(log: Log) -> None:
    """Call this when the process serves: by then each loop that will ever run is running."""
    names = [_named(task) for task in _tasks() if _waits(task)]
    if not names:
        return
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    log.warning(
        f"nothing runs the event loop of {', '.join(names[:_SHOWN])}{more}, made at the application's "
        "import: start such tasks in its lifespan startup, or run their loop in a thread"
    )


def _tasks() -> list[Any]:
    """The tasks of all loops. asyncio tells only those of one loop, so its own sets are read."""
    module: Any = sys.modules.get("asyncio.tasks")
    found: list[Any] = []
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):  # until 3.11; since 3.12
        for _ in range(3):
            try:
                found += list(getattr(module, name, ()))
                break
            except RuntimeError:  # another thread has made a task
                continue
    return found or _of_current_loop()


def _of_current_loop() -> list[Any]:
    """The tasks of this thread's current loop, if it has been made: since Python 3.14 no set has all."""
    asyncio: Any = sys.modules.get("asyncio")
    policy = getattr(getattr(asyncio, "events", None), "_event_loop_policy", None)
    loop = getattr(getattr(policy, "_local", None), "_loop", None)
    return [] if loop is None else list(asyncio.all_tasks(loop))


def _waits(task: Any) -> bool:
    try:
        loop = task.get_loop()
        return not (task.done() or loop.is_running() or loop.is_closed())
    except Exception:  # a task or loop of a class of the application
        return False


def _named(task: Any) -> str:
    """The coroutine of a task, with the file and line of its function."""
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__
    code = getattr(coroutine, "cr_code", None)
    return f"{name} ({os.path.relpath(code.co_filename)}:{code.co_firstlineno})" if code is not None else name
