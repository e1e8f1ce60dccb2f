"""Fetch and run the tools, at the versions in tools/*.txt, in a temporary environment: images lack them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mooring.errors import ConfigurationError, ToolError

LOCKS = Path(__file__).with_name("tools")
_PROGRAM = {"py-rattler": "python"}  # the program of a tool, if it is not named as its package


def pinned(tool: str) -> str:
    """The version at which a tool is fetched."""
    found = re.search(
        rf"^{re.escape(tool)}(?:\[.*\])?==(\S+)", (LOCKS / f"{tool}.txt").read_text(), re.MULTILINE
    )
    assert found is not None
    return found[1]


def label(tool: str, environ: Mapping[str, str]) -> str:
    """A tool for messages: its name and pinned version, or the path of the uv that was found."""
    return (_uv_there(environ) if tool == "uv" else "") or f"{tool} {pinned(tool)}"


def _uv_there(environ: Mapping[str, str]) -> str:
    """The path of the uv on PATH, or "". It is used instead of the pinned one: the user has put it there."""
    return shutil.which("uv", path=environ.get("PATH")) or ""


def environment(environ: Mapping[str, str], scratch: Path, cache: Path) -> dict[str, str]:
    """The tools' environment variables: the user's, and defaults that suit an image."""
    return {
        "UV_LINK_MODE": "copy",  # a cache mount is another file system: no links
        "UV_COMPILE_BYTECODE": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": "1",  # a company's own authority is in the system's bundle, not in uv's
        "PDM_CHECK_UPDATE": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIPENV_VERBOSITY": "-1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",  # a build cannot ask anybody
        "UV_CACHE_DIR": str(cache / "uv"),
        "PIP_CACHE_DIR": str(cache / "pip"),
        "RATTLER_CACHE_DIR": str(cache / "rattler"),
        "XDG_CACHE_HOME": str(cache),
        "XDG_STATE_HOME": str(scratch / "state"),
        "XDG_DATA_HOME": str(scratch / "data"),
        **environ,
        "TMPDIR": str(scratch),  # uv leaves lock files there
    }


def cache_folder(given: str, environ: Mapping[str, str], scratch: Path) -> Path:
    """The folder for downloads: the given one, else the user's cache if that is a mount, else in `scratch`.

    A mount (`RUN --mount=type=cache`) is not part of the image; any other folder would be.
    """
    if given:
        return Path(given).absolute()
    usual = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".cache")
    return usual if os.path.ismount(usual) else scratch / "cache"


class Toolbox:
    """Runs tools to install `file`, and fetches each one at its first use. The caller removes `scratch`."""

    def __init__(self, environ: Mapping[str, str], scratch: Path, file: Path) -> None:
        self.environ = dict(environ)
        self._scratch, self._file = scratch, file
        self._uv = ""

    def run(self, tool: str, args: Sequence[str], *, into: Path | None = None, **more: str) -> None:
        """Run a tool in the application's folder. Its output goes to ours, or its stdout to the file `into`.

        `more` are further environment variables. Raises ToolError with the tool's exit code.
        """
        environ = {**self.environ, **more}
        if tool == "uv":
            command = [self._find_uv(), *args]
        else:
            home = self._fetch(tool)
            environ["VIRTUAL_ENV"] = str(home)  # else pdm makes one in the application's folder
            command = [str(home / "bin" / _PROGRAM.get(tool, tool)), *args]
        self._call(tool, command, environ, into)

    def _call(
        self, tool: str, command: list[str], environ: Mapping[str, str], into: Path | None = None
    ) -> None:
        sys.stdout.flush()
        output = None if into is None else os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            code = subprocess.run(  # noqa: S603 (no shell; the commands are plans.py's)
                command, cwd=self._file.parent, env=environ, stdout=output, check=False
            ).returncode
        finally:
            if output is not None:
                os.close(output)
        if code:
            ended = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
            message = f"{self._file}: {tool} {ended}; what it said stands above"
            raise ToolError(message, code if code > 0 else 128 - code)

    def _fetch(self, tool: str) -> Path:
        """An environment with the tool and its dependencies, each file checked against its hash."""
        home = self._scratch / "tools" / tool
        if not home.exists():
            environ = {**self.environ, "UV_LINK_MODE": "symlink", "UV_COMPILE_BYTECODE": "0"}
            uv = self._find_uv()
            make = [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(home)]
            self._call("uv", make, environ)
            fill = [uv, "pip", "sync", "--quiet", "--python", str(home / "bin" / "python")]
            self._call("uv", [*fill, "--require-hashes", str(LOCKS / f"{tool}.txt")], environ)
        return home

    def _find_uv(self) -> str:
        self._uv = self._uv or _uv_there(self.environ) or self._fetch_uv()
        return self._uv

    def _fetch_uv(self) -> str:
        home = self._scratch / "tools" / "uv"
        python = sys.executable
        if importlib.util.find_spec("pip") is None:
            if importlib.util.find_spec("ensurepip") is None:
                raise ConfigurationError(
                    "uv is needed, and is neither on PATH nor is pip here to fetch it; add one"
                )
            self._call("venv", [python, "-m", "venv", str(self._scratch / "pip")], self.environ)
            python = str(self._scratch / "pip" / "bin" / "python")
        fetch = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(home)]
        self._call("pip", [*fetch, "--require-hashes", "--requirement", str(LOCKS / "uv.txt")], self.environ)
        return str(home / "bin" / "uv")
