"""Writes the lifecycle's notices to the log, in words. Not for what the lifecycle decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mooring.logs.log import Log
from mooring.supervisor.lifecycle import Notice, Reason

_LEVELS: Mapping[Notice, str] = {
    Notice.SPAWNED: "debug",
    Notice.DRAINING: "debug",
    Notice.RESIZED: "debug",
    Notice.ROLL_FAILED: "error",
    Notice.DEADLINE: "error",
    Notice.BACKOFF: "warning",
    Notice.BOOT_FAILED: "debug",  # the last line on stderr says it
}

# With live reload a save makes three log lines (the path, ready, the traceback's last line), not six.
_LIVE_RELOAD: Mapping[Notice, str] = {
    Notice.ROLLING: "debug",
    Notice.ROLL_FAILED: "debug",
}

_UNTOLD = {"ordered"}  # it was logged when the worker was drained or killed


def _backoff(data: Mapping[str, Any]) -> str:
    if math.isinf(data["seconds"]):
        return f"{data['why']}; waiting for the next save"
    return (
        f"worker {data['slot']} failed {data['failures']} times in a row; next try in {data['seconds']:.1f} s"
    )


def _roll_failed(data: Mapping[str, Any]) -> str:
    kept = (
        f"generation {data['generation']} keeps serving" if data["rolled_back"] else "nothing to go back to"
    )
    return f"roll to generation {data['failed']} failed ({data['why']}); {kept}"


def _exited(data: Mapping[str, Any]) -> str:
    return f"worker {data['slot']} exited while {data['state']}: {data['why']}"


def _stopping(data: Mapping[str, Any]) -> str:
    return f"stopping ({data['why']}): at most {data['seconds']:g} s"


_TEXTS: Mapping[Notice, Any] = {
    Notice.SPAWNED: "worker {slot} is starting (generation {generation})",
    Notice.READY: "worker {slot} is ready after {seconds:.2f} s",
    Notice.SERVING: "serving",
    Notice.ROLLING: "rolling to generation {generation}",
    Notice.ROLL_QUEUED: "another roll is queued",
    Notice.ROLLED: "rolled: generation {generation} serves",
    Notice.ROLL_FAILED: _roll_failed,
    Notice.RECYCLING: "recycling worker {slot}: {why}",
    Notice.RESIZED: "{size} workers are wanted ({previous} before)",
    Notice.DRAINING: "worker {slot} drains: {why}",
    Notice.DEADLINE: "worker {slot}: {deadline} deadline passed; killing it",
    Notice.EXITED: _exited,
    Notice.BACKOFF: _backoff,
    Notice.BOOT_FAILED: "the application could not boot: {why}",
    Notice.STOPPING: _stopping,
    Notice.STOPPED: "stopped ({why})",
}


def tell(log: Log, kind: Notice, data: Mapping[str, Any], *, live_reload: bool = False) -> None:
    """Log one notice."""
    text, said = _TEXTS[kind], _Said(data)
    message = text(said) if callable(text) else text.format_map(said)
    level = _LEVELS.get(kind, "info")
    if kind is Notice.EXITED:
        level = "error" if data["failed"] else "debug"
    if live_reload:
        level = _LIVE_RELOAD.get(kind, level)
        if kind is Notice.EXITED and data["state"] == "starting":
            level = "debug"  # the back-off notice that follows says why
        if kind is Notice.BACKOFF and math.isinf(data["seconds"]):
            level = "error"
    shown = {name: _plain(value) for name, value in data.items() if name not in _UNTOLD}
    fields = {"notice": str(kind), **shown}
    told = {"notice", *said.told}  # the message itself says which notice it is
    if not data.get("exit_code"):
        told.add("exit_code")  # people expect 0: it need not be shown
    log.record(level, message, fields, told=told)


class _Said(Mapping[str, Any]):
    """A notice's data; `told` collects the names of the fields that the message has used."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.told: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.told.add(name)
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


def _plain(value: Any) -> Any:
    if isinstance(value, Reason):
        return str(value)
    return round(value, 3) if isinstance(value, float) else value
