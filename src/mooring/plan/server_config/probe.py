"""Evaluate a server's configuration file in a process of its own, and report what it sets.

    python -P probe.py REPORT_FD KIND REFERENCE CMD_ARGS MODULE_PATH

find.py runs this program, so that the supervisor never imports the user's code or a server. The program
imports nothing of mooring. Its report is one JSON object: `file` and `cmd` map names to values as the server
understood them; or `error` is one line. An exception of the user's code is printed from that code's first
frame on, and the exit code is 1.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import shlex
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

_LONGEST = 40  # seconds, more than find.py waits: ends a probe whose supervisor was killed
_SIMPLE = (str, int, float, bool, list, tuple)
_MACHINERY = (__file__, "<frozen ", str(runpy.__file__), os.path.dirname(str(importlib.__file__)) + os.sep)


class _BadError(Exception):
    """The user's configuration is wrong; the text says what is wrong."""


def main() -> None:
    """Evaluate the configuration that the arguments name, and write the report."""
    report, kind, reference, cmd_args, path = sys.argv[1:]
    signal.alarm(_LONGEST)
    sys.path[:] = [os.getcwd(), *path.split(os.pathsep)]
    try:
        found = _gunicorn(reference, cmd_args) if kind == "gunicorn" else {"file": _hypercorn(reference)}
        text = json.dumps(found, default=_plain)
    except _BadError as error:
        text = json.dumps({"error": " ".join(str(error).split())})
    except Exception as error:
        _show(error)
        sys.exit(1)
    with os.fdopen(int(report), "w") as file:
        file.write(text)


def _show(error: Exception) -> None:
    """The traceback without the frames of this file and of the import system at its top."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        trace = trace.tb_next
    sys.stdout.flush()
    traceback.print_exception(type(error), error, trace)


def _hypercorn(reference: str) -> dict[str, Any]:
    """The variables of a configuration: `file:PATH` and `python:MODULE` are Python, PATH is TOML.

    hypercorn's own option -c takes the same forms.
    """
    if reference.startswith(("file:", "python:")):
        return {name: value for name, value in _variables(reference).items() if isinstance(value, _SIMPLE)}
    import tomllib

    try:
        with open(reference, "rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _BadError(f"not valid TOML: {error}") from None


def _variables(reference: str) -> Mapping[str, Any]:
    if reference.startswith("python:"):
        return vars(importlib.import_module(reference.removeprefix("python:")))
    path = reference.removeprefix("file:")
    if not os.path.isfile(path):
        raise _BadError(f"{path} does not exist")
    return runpy.run_path(path, run_name="__config__")


def _gunicorn(reference: str, cmd_args: str) -> dict[str, Any]:
    """The values that gunicorn reads from a file and from arguments, in the order of gunicorn/app/base.py."""
    from gunicorn.config import Config

    config: Any = Config()  # type: ignore[no-untyped-call]
    given = _arguments(config, cmd_args)
    named = given.pop("config", None)
    if not reference:
        reference = str(named or "")
        if not named and os.path.isfile("gunicorn.conf.py"):
            reference = os.path.abspath("gunicorn.conf.py")
    found: dict[str, Any] = {"reference": reference, "file": {}, "cmd": {}}
    if reference:
        variables = _variables(reference)
        found["file"] = _set(config, {k: v for k, v in variables.items() if k in config.settings})
    found["cmd"] = _set(config, given)
    return found


def _arguments(config: Any, text: str) -> dict[str, Any]:
    parser = config.parser()

    def fail(message: str) -> NoReturn:
        raise _BadError(message)

    parser.error = fail
    try:
        given = vars(parser.parse_args(shlex.split(text)))
    except ValueError as error:  # from shlex
        raise _BadError(str(error)) from None
    except SystemExit:
        raise _BadError("--help and --version cannot be used here") from None
    return {name: value for name, value in given.items() if value is not None and name != "args"}


def _set(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Set values through gunicorn's validators. Returns the values that the validators made."""
    for name, value in values.items():
        try:
            config.set(name.lower(), value)
        except Exception as error:
            raise _BadError(f"{name}: {error}") from None
    return {name.lower(): config.settings[name.lower()].get() for name in values}


def _plain(value: Any) -> Any:
    """A text for a value that JSON cannot hold: a class's dotted name, else the name of its type."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return f"<{type(value).__name__}>"


if __name__ == "__main__":
    main()
