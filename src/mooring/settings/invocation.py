"""What mooring was called with, from which its settings are resolved: now, and at each roll anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Invocation(NamedTuple):
    """The settings of the command line, the environment, and the folder that relative names count from.

    A pre-start hook may change all but the first, and `cwd`: the workers' working folder, where that is not
    the application root (None).
    """

    cli: Mapping[str, str]
    environ: Mapping[str, str]
    folder: Path
    cwd: str | None = None

    def working_folder(self, app_root: str | None) -> str:
        """Where the workers run, with that application root in the settings."""
        return self.cwd or app_root or "."
