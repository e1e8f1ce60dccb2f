"""What mooring was called with. The settings are resolved from it at the start, and again at each roll."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Invocation(NamedTuple):
    """The command line's settings, the environment, and the folder that relative paths are relative to.

    `cwd` is the workers' working folder; None: the application root. A pre-start hook may change all of these
    but `cli`.
    """

    cli: Mapping[str, str]
    environ: Mapping[str, str]
    folder: Path
    cwd: str | None = None

    def working_folder(self, app_root: str | None) -> str:
        """The workers' working folder, where the settings have this application root."""
        return self.cwd or app_root or "."
