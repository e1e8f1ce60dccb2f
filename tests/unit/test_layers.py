"""Packages import only those below them, files never in a circle (docs/architecture.md).

Every import counts: those inside functions and those for type checking too.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mooring

ROOT = Path(mooring.__file__).parent

# From the top down: the data flow of docs/architecture.md.
PACKAGES = (
    *("commands", "admin", "supervisor", "worker", "engines", "instrument", "metrics"),
    *("plan", "application", "settings", "logs", "scoreboard", "resources", "system"),
)

# What a supervisor must never hold: engines, loops, and what is slow to import.
FORBIDDEN = (
    *("asyncio", "uvicorn", "granian", "hypercorn", "gunicorn", "uvloop", "ssl", "watchfiles", "trio"),
    "subprocess",
)


def files() -> list[str]:
    """Every source file, as its path below the package."""
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def room(file: str) -> str:
    """The package that a file lies in; "" for those at the top."""
    return file.split("/", maxsplit=1)[0] if "/" in file else ""


def names(tree: ast.Module) -> Iterator[str]:
    """All that a file imports, each as a dotted name: of `from a import b` it is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def file_of(name: str) -> str:
    """The file of mooring that an imported name comes from; "" for a stranger's."""
    parts = name.split(".")
    if parts[0] != "mooring":
        return ""
    for end in range(len(parts), 0, -1):
        path = "/".join(parts[1:end])
        for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/")):
            if (ROOT / file).is_file():
                return file
    raise AssertionError(f"nothing of mooring's is called {name}")


def names_in(file: str) -> list[str]:
    """All that a file of mooring's imports, as dotted names."""
    return list(names(ast.parse((ROOT / file).read_text())))


@functools.cache
def imports(file: str) -> frozenset[str]:
    """The files of mooring that a file imports."""
    found = map(file_of, names_in(file))
    return frozenset(other for other in found if other and other != file)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    above = PACKAGES[: PACKAGES.index(package)]
    known = {(f, other) for f in files() if room(f) == package for other in imports(f)}
    up = {(f, other) for f, other in known if room(other) in above or other in {"cli.py", "__main__.py"}}
    assert not up


def test_every_file_has_a_package() -> None:
    assert {room(file) for file in files()} == {"", *PACKAGES}
    assert {f for f in files() if not room(f)} == {
        "__init__.py",
        "__main__.py",
        "cli.py",
        "errors.py",
        "demo.py",
    }


def test_no_files_import_each_other_in_a_circle() -> None:
    left = {file: set(imports(file)) for file in files()}
    while leaves := [file for file, needs in left.items() if not needs & left.keys()]:
        for file in leaves:
            del left[file]
    assert not left


@pytest.mark.parametrize("folder", ["resources", "supervisor/lifecycle"])
def test_some_import_only_the_standard_library(folder: str) -> None:
    known = {name for file in files() if file.startswith(f"{folder}/") for name in names_in(file)}
    own = f"mooring.{folder.replace('/', '.')}"
    foreign = {name for name in known if name.split(".", 1)[0] not in sys.stdlib_module_names}
    assert not {name for name in foreign if not f"{name}.".startswith(f"{own}.")}


@pytest.mark.parametrize("stranger", ["engines", "instrument", "application", "metrics"])
def test_the_supervisor_knows_no_application(stranger: str) -> None:
    known = {(f, other) for f in files() if room(f) == "supervisor" for other in imports(f)}
    assert not {(f, other) for f, other in known if room(other) == stranger}


def test_the_supervisor_imports_no_engine_and_nothing_slow() -> None:
    code = "import mooring.cli, mooring.commands.run.start, sys\n"
    code += f"print(*[name for name in {FORBIDDEN!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
