"""What all processes of an instance have in common: where they run, as whom, and where their lines go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mooring.logs.log import Log, LogFiles
from mooring.system.accounts import Account


class Context(NamedTuple):
    """Environment and working folder (what the pre-start hook has left), and the user to become (None: stay).

    `log` is mooring's own, `access` the access log's descriptor (None: off), `files` are the log files that
    this process holds, to open them anew after a rotation.
    """

    environ: Mapping[str, str]
    folder: str
    account: Account | None
    log: Log
    access: int | None
    files: LogFiles

    def for_workers(self, environ: Mapping[str, str]) -> Context:
        """The same without the access log, which only its writer holds; with that environment."""
        return self._replace(environ=environ, access=None, files=self.files.without(self.access))
