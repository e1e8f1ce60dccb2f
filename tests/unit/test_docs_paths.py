"""What docs and docstrings say of files is true: each file that they name is there, each function in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from checkout import ROOT

SOURCE = ROOT / "src/mooring"
PACKAGES = sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").is_file())
NAMED = re.compile(rf"(?<![\w./-])(?:src/mooring/)?((?:{'|'.join(PACKAGES)})/[\w/]+\.py)(?::(\w+))?")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src").rglob("*.py"))]
PAGES += sorted((ROOT / "src/accelerator").iterdir())


def defined(file: Path) -> set[str]:
    """The functions and classes of a file, methods included."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_file_that_is_named_is_there(page: Path) -> None:
    for path, function in NAMED.findall(page.read_text()):
        file = SOURCE / path
        assert file.is_file(), path
        assert not function or function in defined(file), f"{path}: {function}"


def test_the_architecture_page_names_all_packages() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [
        *("commands", "admin", "supervisor", "worker", "engines", "instrument", "metrics"),
        *("plan", "application", "settings", "logs", "scoreboard", "resources", "system"),
    ]
    assert len(NAMED.findall(page)) > 30


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports each by its file's name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
