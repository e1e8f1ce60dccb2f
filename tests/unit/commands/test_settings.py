"""`mooring settings`: the reference of all settings, for people and as the page docs/settings.md."""

from __future__ import annotations

import re

import pytest

from mooring.commands.settings import as_markdown, as_text
from mooring.settings.table import ROWS, restart_text

CELLS = {cells[0].strip("|` ").partition("`")[0]: cells
         for cells in (line.split(" | ") for line in as_markdown().splitlines())
         if len(cells) > 1}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_setting_that_only_a_restart_changes_says_so_in_its_row(name: str) -> None:
    row = ROWS[name]
    *_, option, _, needs, text = CELLS[row.variables[0]]
    assert option.strip(" `") == ("" if row.secret else row.option)
    assert needs == restart_text(row)
    assert text.startswith(row.help.replace("|", "\\|"))
    first = ", ".join(row.variables) + ("" if row.secret else f"  ({row.option})")
    (told,) = re.findall(rf"^  {re.escape(first)}\n((?:      .*\n)+)", as_text(), re.MULTILINE)
    assert told.count("Needs a restart: ") == bool(row.restart)
    assert told.endswith(f"      Needs a restart: {needs}\n" if row.restart else "\n")


def test_it_is_said_in_words() -> None:
    assert restart_text(ROWS["port"]) == "yes"
    assert restart_text(ROWS["timeout"]) == ""
    assert restart_text(ROWS["tls_key"]) == "to turn TLS on or off"
