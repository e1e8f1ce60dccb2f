"""The program that attacks servers (benchmarks/hostile.py) sees what is there: in a few attacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks/hostile.py"


def test_it_sees_what_ends_an_attack_and_what_does_not(tmp_path: Path):
    results = tmp_path / "hostile.json"
    words = [
        "--servers",
        "^mooring, uvicorn$",
        "--attacks",
        "^(stalled head|tiny chunks|unread answer|many fields|two hosts)$",
    ]
    words += ["--wait", "60", "--flood", "1", "--results", str(results), "--no-docs"]
    limits = {"MOORING_HEAD_TIMEOUT": "1", "MOORING_SEND_TIMEOUT": "1"}
    done = subprocess.run(
        [sys.executable, BENCHMARK, *words],
        env=os.environ | limits,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads(results.read_text())["cells"]["mooring, uvicorn"]
    assert {title: cell["ended"] for title, cell in cells.items()} == {
        "stalled head": "408", "tiny chunks": "", "unread answer": "cut",
        "many fields": "431", "two hosts": "400",
    }  # fmt: skip
    assert all(cell["closed"] for title, cell in cells.items() if title != "tiny chunks")
    assert cells["many fields"]["sent"] < 10_000_000
    for title in ("stalled head", "tiny chunks"):
        assert cells[title]["asked"] > cells[title]["failed"] == cells[title]["lost"] == 0
