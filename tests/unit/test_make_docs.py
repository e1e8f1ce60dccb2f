"""The generated documentation is what the code says, and `make docs` writes all of it."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from checkout import ROOT

from mooring.metrics.prometheus import METRICS

_spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/make_docs.py")
assert _spec is not None
assert _spec.loader is not None
make_docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_docs)

PAGES = {path.relative_to(ROOT).as_posix(): text for path, text in make_docs.pages().items()}
REFERENCE = (ROOT / "docs/reference.md").read_text()
BEGIN = re.compile("<!-- generated: (.*) -->")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_what_the_code_has(page: str) -> None:
    assert (ROOT / page).read_text() == PAGES[page], "run make docs"


def test_every_section_that_says_it_is_generated_is() -> None:
    texts = {path: path.read_text() for path in (ROOT / "docs").rglob("*.md")}
    marked = {path.relative_to(ROOT).as_posix(): BEGIN.findall(text) for path, text in texts.items()}
    made = {page: list(contents) for page, contents in make_docs.sections().items()}
    assert {page: names for page, names in marked.items() if names} == made


def test_the_reference_has_each_metric_with_all_that_is_declared() -> None:
    rows = re.findall(r"^\| `(mooring_\w+)` \| (.*) \|$", REFERENCE, re.MULTILINE)
    assert [name for name, _ in rows] == [f"mooring_{metric.name}" for metric in METRICS]
    for metric, (_, row) in zip(METRICS, rows, strict=True):
        kind, labels, help_text, absent = row.split(" | ")
        assert (kind, help_text, absent.strip()) == (metric.type, metric.help, metric.absent)
        assert tuple(re.findall(r"`(\w+)`", labels)) == metric.labels


def test_the_documentation_names_no_metric_that_there_is_not() -> None:
    names = {f"mooring_{metric.name}" for metric in METRICS}
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        told = set(
            re.findall(r"\bmooring_[a-z]\w*_(?:total|seconds|bytes|cores|up|open)\b", path.read_text())
        )
        assert told <= names, path


def test_making_it_mends_what_was_changed_and_nothing_else(tmp_path, capsys) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    make_docs.main(tmp_path)
    assert capsys.readouterr().out == ""
    (tmp_path / "docs/settings.md").write_text("")
    for name, words in (
        ("reference.md", "Open WebSocket connections."),
        ("lifecycle.md", "[*] --> starting"),
    ):
        page = tmp_path / "docs" / name
        assert words in page.read_text()
        page.write_text(f"one line more\n{page.read_text().replace(words, '?')}")
    make_docs.main(tmp_path)
    written = capsys.readouterr().out.splitlines()
    assert sorted(written) == [f"written: docs/{name}.md" for name in ("lifecycle", "reference", "settings")]
    for name in ("reference.md", "lifecycle.md"):
        assert (
            tmp_path / "docs" / name
        ).read_text() == f"one line more\n{(ROOT / 'docs' / name).read_text()}"
    assert (tmp_path / "docs/settings.md").read_text() == PAGES["docs/settings.md"]


@pytest.mark.parametrize(
    "page",
    ["", "<!-- generated: a -->\n", "<!-- end -->\n", "<!-- generated: a -->\n<!-- end -->\n" * 2],
)
def test_a_page_without_its_section_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="generated: a"):
        make_docs.fill(page, {"a": "x"})


def test_a_section_is_filled_whatever_it_held() -> None:
    made = make_docs.fill("1\n<!-- generated: a -->\nold\n<!-- end -->\n2\n", {"a": r"\1 new"})
    assert made == "1\n<!-- generated: a -->\n\\1 new\n<!-- end -->\n2\n"
    assert make_docs.fill(made, {"a": r"\1 new"}) == made


def test_make_docs_runs_it() -> None:
    recipe = re.search(r"^docs:.*\n((?:\t.*\n)+)", Path(ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert "scripts/make_docs.py" in recipe[1]
