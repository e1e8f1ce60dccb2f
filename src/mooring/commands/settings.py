"""The reference of settings, made from the table: for `mooring settings` and docs/settings.md."""

from __future__ import annotations

from itertools import groupby

from mooring.settings.table import ROWS, default_text, restart_text

_HEAD = """# Settings

Made from the table in `src/mooring/settings/table.py` by `make docs`; do not edit.

Origins, strongest first: command line, `MOORING_X`, bare `X`, `[tool.mooring]` in pyproject.toml or
mooring.toml, profile, default. An empty value means unset, but for `ACCESS_LOG` and `ERROR_LOG`, where it
means off. `mooring check` shows every value and its origin.

Each `MOORING_X` may be given as `MOORING_X_FILE` too: the path of a file that holds the value, as Docker,
Swarm and Kubernetes give secrets. Secrets have no option: every user of a machine can read command lines.

A roll takes up what has changed in the configuration file, but for the settings that need a restart:
[rolls](how-to/roll.md).
"""
_COLUMNS = "| variable | option | default | needs a restart | meaning |\n|---|---|---|---|---|\n"


def as_text() -> str:
    """The reference for a terminal."""
    lines = []
    for section, rows in groupby(ROWS.values(), key=lambda row: row.section):
        lines.append(f"{section}\n")
        for row in rows:
            option = "" if row.secret else f"  ({row.option})"
            lines.append(f"  {', '.join(row.variables)}{option}\n      {row.help}.\n")
            lines.append(f"      Default: {default_text(row)}\n")
            lines += [f"      Needs a restart: {restart_text(row)}\n"] if row.restart else []
        lines.append("\n")
    return "".join(lines).rstrip("\n") + "\n"


def as_markdown() -> str:
    """The page docs/settings.md."""
    lines = [_HEAD]
    for section, rows in groupby(ROWS.values(), key=lambda row: row.section):
        lines.append(f"\n## {section}\n\n{_COLUMNS}")
        for row in rows:
            names = "<br>".join(f"`{name}`" for name in row.variables)
            text = row.help.replace("|", "\\|")
            cells = (
                names,
                "" if row.secret else f"`{row.option}`",
                default_text(row),
                restart_text(row),
                text,
            )
            lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)
