"""Whether mooring can work with the installed packages, such as the application's version of uvicorn."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path
from typing import NamedTuple

from mooring.commands.install.versions import satisfies

_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")


class Mismatch(NamedTuple):
    """A package whose version mooring cannot work with; `optional` if only an extra of mooring needs it."""

    needs: str
    has: str
    optional: bool

    def __str__(self) -> str:
        return f"{self.needs}, but that is {self.has} now"


def mismatches(packages: Path) -> list[Mismatch] | None:
    """All mismatches in a site-packages folder; None if mooring is not installed there."""
    importlib.invalidate_caches()
    by_name = {
        _normal(each.metadata["Name"]): each
        for each in importlib.metadata.distributions(path=[str(packages)])
        if each.metadata["Name"]
    }
    if "mooring" not in by_name:
        return None
    found = []
    for line in by_name["mooring"].requires or ():
        name, ranges, optional = parse(line)
        installed = by_name.get(_normal(name))
        version = installed.version if installed else ""
        if installed and satisfies(ranges, version) is False:
            found.append(Mismatch(f"{name} {ranges}", version, optional))
    return found


def parse(requirement: str) -> tuple[str, str, bool]:
    """A PEP 508 requirement's name, its range of versions, and whether only an extra needs it."""
    found = _REQUIREMENT.match(requirement)
    assert found is not None, requirement
    return found[1], found[2].strip(), "extra" in (found[3] or "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
