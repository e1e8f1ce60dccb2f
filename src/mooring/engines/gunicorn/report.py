"""What gunicorn's workers report to the process that started them: a failed boot, or the first readiness."""

from __future__ import annotations

import json
import os
from typing import Any

from mooring.application.failure import BootError
from mooring.errors import ConfigurationError, MooringError
from mooring.logs.sink import PIPE_BUF
from mooring.system import forks


class Reports:
    """Two pipes, made before gunicorn forks: one for failures, one with a token that the first ready worker
    takes.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._token, write = os.pipe()
        os.write(write, b"1")
        os.close(write)
        os.set_blocking(self._read, False)
        for fd in (self._read, self._write, self._token):
            forks.disown(fd)

    def fail(self, error: MooringError) -> None:
        """Report why a worker does not boot, in at most PIPE_BUF bytes: so reports never mix, pipe(7)."""
        facts: dict[str, Any] = {
            "configuration": isinstance(error, ConfigurationError),
            "message": str(error)[:600],  # a character has at most 6 bytes, so this alone always fits
            "traceback": getattr(error, "traceback", "")[-2000:],
        }
        while len(line := _encoded(facts)) > PIPE_BUF:
            facts["traceback"] = facts["traceback"][len(facts["traceback"]) // 4 + 1 :]
        os.write(self._write, line)

    def first(self) -> bool:
        """Whether this worker is the first that asks. With one worker ready, gunicorn counts as ready."""
        return os.read(self._token, 1) == b"1"

    def check(self) -> None:
        """Raise the first failure that was reported."""
        try:
            line = os.read(self._read, 65536).partition(b"\n")[0]
        except BlockingIOError:
            return
        try:
            facts = json.loads(line)
        except ValueError:
            raise BootError("the application did not boot in gunicorn's worker") from None
        if facts["configuration"]:
            raise ConfigurationError(facts["message"])
        raise BootError(facts["message"], facts["traceback"])


def _encoded(facts: dict[str, Any]) -> bytes:
    """One line of JSON; a lone surrogate (a byte of a path that is not UTF-8) becomes a JSON escape."""
    return json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
