"""The reference of settings, made from the table: for `mooring settings` and docs/settings.md."""

from __future__ import annotations

from itertools import groupby

from mooring.settings.table import ROWS, default_text, restart_text

_HEAD = """# Settings

Made from the table in `src/mooring/settings/table.py` by `make docs`; do not edit.

Origins, strongest first: command line, `MOORING_X`, bare `X`, `[tool.mooring]` in pyproject.toml or
mooring.toml, profile, default. An empty value means unset, but for `ACCESS_LOG` and `ERROR_LOG`, where it
means off. `mooring check` shows every value and its origin.

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
            lines.append(f"  {', '.join(row.variables)}  ({row.option})\n      {row.help}.\n")
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
            cells = (names, f"`{row.option}`", default_text(row), restart_text(row), text)
            lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)
