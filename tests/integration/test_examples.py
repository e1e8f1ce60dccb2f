"""Every example is served as it lies there, by the command that `make run` gives."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir())


def test_make_run_serves_an_example():
    assert "mooring run --app-root examples/hello" in (ROOT / "Makefile").read_text()
    assert "hello" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_answers(mooring, name):
    app = mooring.run("--app-root", str(ROOT / "examples" / name), files={})
    assert app.get("/").status == 200
    assert app.stop() == 0
    assert app.leftovers == []
