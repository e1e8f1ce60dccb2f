"""Write the generated documentation again: docs/settings.md, and sections of other pages.

    make docs            # python scripts/make_docs.py

A generated section of a page begins with `<!-- generated: NAME -->` and ends with `<!-- end -->`; the text
between them comes from the code. Tests compare the pages with what this would write.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from mooring.commands import settings
from mooring.metrics.prometheus import METRICS
from mooring.supervisor.lifecycle import table

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))


def metrics_table() -> str:
    """A table of mooring's metrics, one in each row."""
    lines = ["| metric | type | labels | help | absent |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        texts = (metric.help.replace("|", "\\|"), metric.absent.replace("|", "\\|"))
        lines.append(f"| {' | '.join((f'`mooring_{metric.name}`', metric.type, labels, *texts))} |")
    return "\n".join(lines)


def sections() -> dict[str, dict[str, str]]:
    """`{PAGE: {NAME: content}}`, pages as paths below the project's root."""
    import hostile_table

    diagram = f"```mermaid\n{table.as_mermaid()}\n```"
    return {
        "docs/lifecycle.md": {"table": table.as_markdown(), "diagram": diagram},
        "docs/reference.md": {"metrics": metrics_table()},
        "docs/security.md": hostile_table.sections(),
    }


def fill(page: str, contents: Mapping[str, str]) -> str:
    """A page's text with its sections replaced. Raises ValueError unless the page has each section once."""
    for name, content in contents.items():
        pattern = re.compile(f"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end -->\n)", re.DOTALL)
        found = pattern.split(page)
        if len(found) != 4:
            raise ValueError(f"expected one section `<!-- generated: {name} -->` ... `<!-- end -->`")
        before, begin, end, after = found
        page = f"{before}{begin}{content}\n{end}{after}"
    return page


def pages(root: Path = ROOT) -> dict[Path, str]:
    """The new text of each page that has a generated section."""
    made = {root / "docs/settings.md": settings.as_markdown()}
    for name, contents in sections().items():
        made[root / name] = fill((root / name).read_text(), contents)
    return made


def main(root: Path = ROOT) -> None:
    """Write the pages that differ, and print their names."""
    for path, text in pages(root).items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"written: {path.relative_to(root)}")


if __name__ == "__main__":
    main()
