"""Check that a release's names agree: its tag, pyproject.toml, mooring.__version__ and CHANGELOG.md.

    python scripts/version_check.py [TAG]

Exit code 1 where they do not. Without a tag, the changelog may still say Unreleased.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """What does not agree, one line each. Without a tag, the changelog's heading is not checked."""
    version = str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    found = []
    told = re.search(r'^__version__ = "(.*)"', (root / "src/mooring/__init__.py").read_text(), re.MULTILINE)
    if told is None or told[1] != version:
        found.append(f"src/mooring/__init__.py has {told and told[1]}, pyproject.toml {version}")
    if tag and tag != f"v{version}":
        found.append(f"the tag is {tag}, pyproject.toml has {version}: expected v{version}")
    if tag and f"\n## [{version}] - 2" not in (root / "CHANGELOG.md").read_text():
        found.append(f"CHANGELOG.md has no heading `## [{version}] - YEAR-MONTH-DAY`")
    return found


if __name__ == "__main__":
    lines = problems(sys.argv[1] if len(sys.argv) > 1 else "")
    for line in lines:
        print(f"version-check: {line}", file=sys.stderr)
    sys.exit(bool(lines))
