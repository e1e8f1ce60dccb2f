"""docs/lifecycle.md has the table and the diagram of the code; `make docs` writes them."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

from mooring.supervisor.lifecycle.table import as_markdown, as_mermaid

PAGE = ROOT / "docs" / "lifecycle.md"
GENERATED = {"table": as_markdown(), "diagram": f"```mermaid\n{as_mermaid()}\n```"}


def section(name: str) -> re.Pattern[str]:
    return re.compile(f"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("name", GENERATED)
def test_the_page_has_what_the_code_has(name: str) -> None:
    found = section(name).search(PAGE.read_text())
    assert found, f"{PAGE} has no section {name}"
    assert found[0] == f"{found[1]}{GENERATED[name]}\n{found[2]}", "run make docs"


def test_the_page_names_the_simulations_invariants() -> None:
    simulation = ROOT / "tests/simulation"
    names = re.findall(
        r'claim\(.*?"([a-z-]+)"', "".join(p.read_text() for p in simulation.glob("lifecycle_*.py")), re.DOTALL
    )
    assert names
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", PAGE.read_text())) >= {n for n in names if "-" in n}
