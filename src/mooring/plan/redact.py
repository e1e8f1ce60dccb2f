"""Keep secrets out of the admin endpoint's responses, of `mooring check` and of mooring's own log. Pure.

The plan itself masks secret settings. Here are the secrets that other values may contain: arguments of a
factory, environment variables in gunicorn's arguments, arguments of companions. Not for the text of the
application's errors: admin/status.py.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(not shown)"
# gunicorn's option --env, which argparse also accepts abbreviated, or as -e behind flags (-De).
_ENV_NAME = r"-[DRv]*e|--e(?:nv?)?"
_ENV = re.compile(rf"({_ENV_NAME})(=?)(.*)", re.DOTALL)
_ENV_ALONE = re.compile(_ENV_NAME)


def call(text: str) -> str:
    """An import string without the arguments of its factory: `main:create_app(...)`."""
    name, bracket, rest = text.partition("(")
    return f"{name}(...)" if bracket and rest.strip() != ")" else text


def without_arguments(text: str, target: str | None) -> str:
    """A text of mooring's, with the factory's arguments removed where it names the application `target`."""
    return text.replace(target, call(target)) if target else text


def arguments(text: str) -> str:
    """Arguments for gunicorn without the values of its `--env`."""
    import shlex  # imported here: 2 ms, and most users give no such arguments

    try:
        words = shlex.split(text)
    except ValueError:
        return HIDDEN
    shown: list[str] = []
    for word in words:
        if shown and _ENV_ALONE.fullmatch(shown[-1]):
            shown.append(_name_only(word))
        elif (found := _ENV.fullmatch(word)) and (not found[1].startswith("--") or found[2]):
            shown.append(f"{found[1]}{found[2]}{_name_only(found[3])}")
        else:
            shown.append(word if word.startswith("-") else call(word))
    return " ".join(shown)


def _name_only(assignment: str) -> str:
    name, equals, _ = assignment.partition("=")
    return f"{name}={HIDDEN}" if equals else name


def plan(shown: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A plan as JSON (Plan.as_json), without the secrets that its values may contain."""
    result = dict(shown)
    for name, hide in (("app", call), ("gunicorn_cmd_args", arguments)):
        if name in result and isinstance(result[name]["value"], str):
            result[name] = {**result[name], "value": hide(result[name]["value"])}
    if "companions" in result:
        commands = result["companions"]["value"] or ()
        shown_commands = [f"{command.split()[0]} ..." for command in commands]
        result["companions"] = {**result["companions"], "value": shown_commands}
    return result
