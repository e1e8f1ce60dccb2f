"""What docs/security.md says is there: each setting, each test, the form of a refusal's line."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from checkout import ROOT

from mooring.instrument.refusals import Refusals
from mooring.logs.log import Log
from mooring.scoreboard.row import REFUSALS, Row
from mooring.settings.table import ROWS

PAGE = (ROOT / "docs/security.md").read_text()
THREATS = re.findall(r"^\| ([^|]+) \| ([^|]+) \|([^|]*)\| ([^|]*`test_[^|]*) \|$", PAGE, re.MULTILINE)


def named_tests(folder: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    trees = [ast.parse(file.read_text()) for file in folder.rglob("test_*.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, kinds)}


def test_each_threat_has_tests_that_there_are():
    assert len(THREATS) >= 15
    there = named_tests(ROOT / "tests")
    for threat, _, _, named in THREATS:
        tests = re.findall(r"`(\w+)`", named)
        assert tests, threat
        assert set(tests) <= there, threat


def test_each_setting_that_is_named_is_one():
    names = {row.canonical for row in ROWS.values()}
    files = {f"{name}_FILE" for name in names}
    named = set(re.findall(r"\b(MOORING_[A-Z_]+[A-Z])\b", PAGE)) - {"MOORING_X_FILE"}
    assert named
    assert named <= names | files
    limits = {
        "HEAD_TIMEOUT",
        "BODY_TIMEOUT",
        "SEND_TIMEOUT",
        "MAX_HEAD",
        "MAX_FIELDS",
        "MAX_BODY",
        "MAX_CONNECTIONS",
    }
    assert {f"MOORING_{name}" for name in limits} <= named


def failregex() -> tuple[str, str]:
    """fail2ban's own way with a filter: %% is %, and what the date's pattern has found is cut out."""
    date, line = (re.search(rf"^{name} = (.*)$", PAGE, re.MULTILINE) for name in ("datepattern", "failregex"))
    assert date is not None
    assert line is not None
    pattern = date[1].replace("%%", "%")
    for letter, digits in {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}.items():
        pattern = pattern.replace(f"%{letter}", rf"\d{{{digits}}}")
    return pattern.replace("%z", r"[+-]\d{4}"), line[1].replace("<ADDR>", r"(?P<address>\S+)")


@pytest.mark.parametrize("reason", REFUSALS)
@pytest.mark.parametrize("host", ["203.0.113.9", "2001:db8::9"])
def test_fail2ban_reads_the_lines_that_are_written(reason: str, host: str, tmp_path: Path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(file.fileno())
        Refusals(Row, log.warning)(reason, (host, 4711), "not a byte")
    date, line = failregex()
    written = path.read_text().rstrip("\n")
    rest = re.sub(date, "", written, count=1)
    assert rest != written
    found = re.search(line, rest)
    left_out = reason in ("body_timeout", "send_timeout", "connections")
    assert (found["address"] if found else None) == (None if left_out else host)


def test_the_examples_on_the_page_are_such_lines():
    date, line = failregex()
    examples = re.findall(r"^\[2026.*refused.*$", PAGE, re.MULTILINE)
    assert examples
    assert all(re.search(line, re.sub(date, "", each, count=1)) for each in examples)


def test_none_of_moorings_cells_is_bold():
    """What the page says of the figures that lie beside it. They are measured by hand, not here."""
    cells = json.loads((ROOT / "benchmarks/results/hostile.json").read_text())["cells"]
    ours = {name: of for name, of in cells.items() if name.startswith("mooring, ")}
    assert len(ours) == 6
    figures = [cell for of in ours.values() for cell in of.values() if "p99" in cell]
    assert len(figures) > 100
    for cell in figures:
        assert cell["p99"] < 1.0
        assert cell["grown"] < 64
        assert cell["failed"] == cell["lost"] == 0
