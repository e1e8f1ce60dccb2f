"""The environment to install into: mooring's own, or the one that `--prefix` names."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from mooring.errors import ConfigurationError

_FACTS = "import platform, sysconfig; print(platform.python_version()); print(sysconfig.get_path('purelib'))"


class Environment(NamedTuple):
    """An environment.

    `version` is that of its Python (empty if it has no Python yet), `packages` its site-packages folder,
    `own` whether mooring runs in it, `conda` whether it is a conda environment.
    """

    prefix: Path
    python: Path
    version: str
    packages: Path | None
    own: bool
    conda: bool

    def __str__(self) -> str:
        return f"{self.prefix} (Python {self.version})" if self.version else str(self.prefix)


def look(prefix: str) -> Environment:
    """The environment at `prefix`; if that is empty, mooring's own. Raises ConfigurationError."""
    path = Path(prefix or sys.prefix).absolute()
    own = path.resolve() == Path(sys.prefix).resolve()
    python = Path(sys.executable) if own else path / "bin" / "python"
    conda = (path / "conda-meta").is_dir()
    if not python.exists():
        return Environment(path, python, "", None, own, conda)
    ask = [str(python), "-I", "-c", _FACTS]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)  # noqa: S603 (no shell)
    facts = done.stdout.splitlines()
    if done.returncode or len(facts) != 2:
        raise ConfigurationError(f"{python} does not run: {done.stderr.strip() or done.returncode}")
    version = platform.python_version() if own else facts[0]
    return Environment(path, python, version, Path(facts[1]), own, conda)
