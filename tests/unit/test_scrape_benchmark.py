"""The benchmark that makes pages of 64 rows builds a supervisor's parts by hand: they must stay true."""

import subprocess
import sys

from checkout import ROOT

BENCHMARK = ROOT / "benchmarks" / "scrape.py"


def test_it_makes_its_pages():
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--runs", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "/metrics" in done.stdout
    assert "/stats" in done.stdout
