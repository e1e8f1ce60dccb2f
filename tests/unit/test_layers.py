# ruff: noqa: E501
"""Imports point one way: a module imports only what stands on an earlier line of LAYERS (architecture.md, "Layout").

Imports inside functions and for type checking count too; only `TYPE_CHECKING` blocks are let through, since they are
never executed.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mooring

PACKAGE = Path(mooring.__file__).parent

# Upstream first. A folder is one layer; modules on one line do not import each other.
LAYERS = """
accessparts address answers applog asgi2 columns demo departure drain environment errors escape filetree freshcode importstring kinds lifecycle memfd mounts native otelvars profiles proxy redact requestid resources serverconf_probe signals sink sockets units
accessheaders accessjson accessrules accounts boot debugger development doors engines exhaustion exits listeners logform otelwrap process scoreboard sourcelook sources survivors
accelerate accessatoms admin adoption heartbeat history hook logs metrics rates searchorder tally watching
accessline appmetrics companions discovery fleetlog limits meter ring toplast workerlog
accessentry accessentry_wsgi accessoptions importing logwriter otelsdk seat topview
instrument_websocket loader logkeeper otel settings wsgiresponse
adminports instrument_wsgi reference resolve runtime serverconf_values tls
control install instrument plan prestart serverconf_workers
adapters assignment confdump fit hooks reexec reloader renewing reports serverconf top
crew settling wrapping
supervisor worker
hangs headroom postmortem recycling renewal stats template
status templatelink
routes templates
fleet
serve
run
check
cli
"""

PLACE = {name: place for place, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}

# What a supervisor must never hold: engines, loops, and what is slow to import.
FORBIDDEN = (
    "asyncio",
    "uvicorn",
    "granian",
    "hypercorn",
    "gunicorn",
    "uvloop",
    "ssl",
    "watchfiles",
    "trio",
    "subprocess",
)

STANDARD_LIBRARY_ONLY = ("lifecycle", "scoreboard")


def imports(path: Path) -> set[str]:
    """The mooring modules (the first name below the package) that a file imports."""
    tree = ast.parse(path.read_text())
    unseen = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mooring":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mooring.")}
    if path.parent.name == "engines":
        found.discard("adapters")
    return {name for name in found if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()}


def modules() -> dict[str, list[Path]]:
    """Every module or folder of the package with its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name == "engines" and path.name != "__init__.py":
            name = "adapters"  # the registry names them; only a worker loads one
        if name not in {"__init__", "__main__"}:
            found.setdefault(name, []).append(path)
    return found


def test_every_module_has_its_place() -> None:
    assert set(modules()) == set(PLACE)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_only_up_the_list(name: str) -> None:
    below = {
        f"{path.name} imports {other}"
        for path in modules()[name]
        for other in imports(path) - {name}
        if PLACE.get(other, 0) >= PLACE[name]
    }
    assert not below


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY)
def test_the_core_imports_only_the_standard_library(name: str) -> None:
    for path in modules()[name]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign = {n.split(".")[0] for n in names} - set(sys.stdlib_module_names) - {"mooring"}
            assert not foreign, path


def test_the_supervisor_imports_no_engine_and_nothing_slow() -> None:
    code = f"import mooring.cli, mooring.run, sys; print(*[m for m in {FORBIDDEN!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
