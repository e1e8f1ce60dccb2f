"""What all processes of an instance share: environment, working folder, user and logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mooring.logs.log import Log, LogFiles
from mooring.system.accounts import Account


class Context(NamedTuple):
    """Environment and working folder (as the pre-start hook left them), and the user to become (None: stay).

    `log` is mooring's own log, `access` the access log's descriptor (None: off), `files` the log files that
    this process holds, to reopen them after a rotation. `metrics` is the folder that mooring has made for the
    application's metrics (None: there is none, or the user has named one, which is in the environment).
    """

    environ: Mapping[str, str]
    folder: str
    account: Account | None
    log: Log
    access: int | None
    files: LogFiles
    metrics: str | None = None

    def for_workers(self, environ: Mapping[str, str]) -> Context:
        """A copy with this environment, and without the access log, which only the log writer holds."""
        return self._replace(environ=environ, access=None, files=self.files.without(self.access))
