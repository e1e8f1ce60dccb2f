"""Packages import only those below them, files never in a circle (docs/architecture.md).

Every import counts: those inside functions and those for type checking too.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mooring
from mooring.settings.engines import REGISTRY

ROOT = Path(mooring.__file__).parent

# From the top down: the data flow of docs/architecture.md.
PACKAGES = (
    *("commands", "admin", "supervisor", "worker", "engines", "instrument", "metrics"),
    *("plan", "application", "settings", "logs", "scoreboard", "resources", "system"),
)

# The same with the files at the top: `cli` and `__main__` import any package, `demo` is an application that
# imports the registry of engines, `errors` and the version in `__init__` are imported by all.
ORDER = (
    *("__main__.py", "cli.py"),
    *PACKAGES[: PACKAGES.index("settings")],
    "demo.py",
    *PACKAGES[PACKAGES.index("settings") :],
    *("errors.py", "__init__.py"),
)

# What a supervisor must never hold: engines, loops, and what is slow to import.
FORBIDDEN = (
    *(row.module for row in REGISTRY.values()),
    *("asyncio", "uvloop", "ssl", "watchfiles", "trio", "subprocess"),
)

# Texts that name a module of mooring's, by file and text, each with its reason. Any other would be an import
# that these tests do not see.
NAMED_BY_TEXT = {
    ("engines/__init__.py", "mooring.engines."): "imports the adapter of the engine that the plan names",
    ("scoreboard/accelerator.py", "mooring._accelerator"): "the C module may be missing",
    ("application/discovery.py", "mooring.demo"): "the demo is imported as an application is: in the worker",
    ("cli.py", "mooring.demo:app"): "the demo is imported as an application is: in the worker",
    ("demo.py", "mooring.engines."): "finds in sys.modules which engine serves it; imports nothing",
}


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


def texts(tree: ast.Module) -> Iterator[str]:
    """The strings of a file that name a module of mooring's, or the beginning of one; no docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    known = {file.split("/", maxsplit=1)[0].removesuffix(".py") for file in files()} | {"_accelerator"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            name = re.fullmatch(r"mooring\.(\w*)[\w.:]*", node.value)
            if name and (not name[1] or name[1] in known):
                yield node.value


@functools.cache
def imports(file: str) -> frozenset[str]:
    """The files of mooring that a file imports."""
    found = map(file_of, names_in(file))
    return frozenset(other for other in found if other and other != file)


def place(file: str) -> int:
    """Where a file, or its package, stands in the order: 0 is the top."""
    return ORDER.index(room(file) or file)


@pytest.mark.parametrize("name", ORDER)
def test_a_package_imports_only_those_below_it(name: str) -> None:
    own = [file for file in files() if (room(file) or file) == name]
    assert own
    up = {(file, other) for file in own for other in imports(file) if place(other) < place(file)}
    assert not up


def test_the_demo_is_imported_by_nobody() -> None:
    """It is the application of a worker, which imports it by its name."""
    assert not [file for file in files() if "demo.py" in imports(file)]


def test_no_module_is_imported_by_a_text() -> None:
    found = {(file, text) for file in files() for text in texts(ast.parse((ROOT / file).read_text()))}
    assert found == set(NAMED_BY_TEXT)


@pytest.mark.parametrize(
    "code",
    [
        'importlib.import_module("mooring.engines.uvicorn.adapter")',
        '__import__("mooring.metrics")',
        'import_module(f"mooring.{name}")',
        'import_module("mooring." + name)',
    ],
)
def test_such_a_text_is_found(code: str) -> None:
    assert list(texts(ast.parse(code)))


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


@pytest.mark.parametrize(
    ("folder", "more"),
    [
        *((folder, ()) for folder in ("resources", "supervisor/lifecycle", "errors.py", "__init__.py")),
        ("scoreboard", ("mooring.system.",)),
    ],
)
def test_some_import_only_the_standard_library(folder: str, more: tuple[str, ...]) -> None:
    known = {name for file in files() if f"{file}/".startswith(f"{folder}/") for name in names_in(file)}
    own = f"mooring.{folder.replace('/', '.')}"
    foreign = {name for name in known if name.split(".", 1)[0] not in sys.stdlib_module_names}
    assert not {name for name in foreign if not f"{name}.".startswith((f"{own}.", *more))}


@pytest.mark.parametrize("stranger", ["engines", "instrument", "application", "metrics"])
def test_the_supervisor_knows_no_application(stranger: str) -> None:
    known = {(f, other) for f in files() if room(f) == "supervisor" for other in imports(f)}
    assert not {(f, other) for f, other in known if room(other) == stranger}


def test_the_supervisor_imports_no_engine_and_nothing_slow() -> None:
    code = "import mooring.cli, mooring.commands.run.start, sys\n"
    code += f"print(*[name for name in {FORBIDDEN!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
