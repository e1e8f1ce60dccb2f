"""What docs and docstrings say of files is true: each file that they name is there, each function in it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

SOURCE = ROOT / "src/mooring"
PACKAGES = sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").is_file())
NAMED = re.compile(rf"(?<![\w./-])(?:src/mooring/)?((?:{'|'.join(PACKAGES)})/[\w/]+\.py)(?::(\w+))?")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src").rglob("*.py"))]
PAGES += sorted((ROOT / "src/accelerator").iterdir())

SHORT = re.compile(r"(?<![\w./-])((?:[\w-]+/)*[\w-]+\.py)\b(?::(\w+))?")

# Names in docstrings and comments that are no file of mooring's, by the file that has them.
FOREIGN = {
    "application/discovery.py": {"asgi.py", "wsgi.py", "PATH/TO/FILE.py"},
    "application/search_order.py": {
        *(
            "app.py",
            "application.py",
            "asgi.py",
            "main.py",
            "manage.py",
            "server.py",
            "settings.py",
            "wsgi.py",
        ),
        *("app/__init__.py", "app/app.py", "app/main.py", "src/__init__.py"),
    },
    "application/source_scan.py": {"asgi.py", "manage.py", "wsgi.py"},
    "engines/granian/options.py": {"granian/server/mp.py"},
    "engines/gunicorn/config.py": {"gunicorn/app/base.py"},
    "engines/hypercorn/config.py": {"PATH.py"},
    "metrics/multiprocess/files.py": {"prometheus_client/mmap_dict.py"},
    "plan/server_config/probe.py": {"gunicorn/app/base.py"},
}


def prose(source: str) -> Iterator[str]:
    """The docstrings and comments of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def named_in_prose(file: Path) -> list[tuple[str, str]]:
    """The files that docstrings and comments of a file name, each with the function named."""
    return [found for text in prose(file.read_text()) for found in SHORT.findall(text)]


def found_from(file: Path, name: str) -> Path | None:
    """The file that a name means: in the same folder, below src/mooring, or in the project's root."""
    places = (file.parent / name, SOURCE / name, ROOT / name)
    return next((place for place in places if place.is_file()), None)


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


@pytest.mark.parametrize("page", sorted(SOURCE.rglob("*.py")), ids=lambda page: str(page.relative_to(SOURCE)))
def test_each_file_that_a_docstring_or_comment_names_is_there(page: Path) -> None:
    foreign = FOREIGN.get(page.relative_to(SOURCE).as_posix(), set())
    for name, function in named_in_prose(page):
        if name in foreign:
            continue
        file = found_from(page, name)
        assert file is not None, name
        assert not function or function in defined(file), f"{name}: {function}"


@pytest.mark.parametrize("page", FOREIGN)
def test_each_foreign_name_is_still_there(page: str) -> None:
    assert FOREIGN[page] <= {name for name, _ in named_in_prose(SOURCE / page)}


def test_the_architecture_page_names_all_packages() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [
        *("commands", "admin", "supervisor", "worker", "engines", "instrument", "metrics"),
        *("plan", "application", "settings", "logs", "scoreboard", "resources", "system"),
    ]
    assert len(NAMED.findall(page)) > 30


LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")
LINKING = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports each by its file's name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
