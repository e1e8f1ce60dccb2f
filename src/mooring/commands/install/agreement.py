"""Whether mooring can work with what is installed: the application's own uvicorn, granian and the like."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path
from typing import NamedTuple

from mooring.commands.install.versions import satisfies

_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")


class Mismatch(NamedTuple):
    """A package that mooring, or an extra of it, cannot work with; `optional`: only an extra asks for it."""

    needs: str
    has: str
    optional: bool

    def __str__(self) -> str:
        return f"{self.needs}, but that is {self.has} now"


def mismatches(packages: Path) -> list[Mismatch] | None:
    """All of them in a site-packages folder; None where mooring is not installed there."""
    importlib.invalidate_caches()
    there = {
        _normal(each.metadata["Name"]): each
        for each in importlib.metadata.distributions(path=[str(packages)])
        if each.metadata["Name"]
    }
    if "mooring" not in there:
        return None
    found = []
    for line in there["mooring"].requires or ():
        name, ranges, optional = parse(line)
        installed = there.get(_normal(name))
        version = installed.version if installed else ""
        if installed and satisfies(ranges, version) is False:
            found.append(Mismatch(f"{name} {ranges}", version, optional))
    return found


def parse(requirement: str) -> tuple[str, str, bool]:
    """Name, range of versions, and whether only an extra asks for it, of a requirement in PEP 508's form."""
    found = _REQUIREMENT.match(requirement)
    assert found is not None, requirement
    return found[1], found[2].strip(), "extra" in (found[3] or "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
