"""Import the application's module, or say in one line why that fails. For the loader only."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from mooring.application import failure
from mooring.application.discovery import Target
from mooring.application.failure import BootError

process = 0  # the pid of the process that has imported the application; forked from it, others differ


def search_first(folders: tuple[Path, ...]) -> None:
    """Put folders first on sys.path, once each, in their order."""
    first = [str(folder) for folder in folders]
    sys.path[:] = first + [entry for entry in sys.path if entry not in first]
    sys.path_importer_cache.clear()  # not importlib.invalidate_caches(): that takes 9 ms


def import_module(target: Target) -> ModuleType:
    """The target's module. Raises BootError."""
    global process  # noqa: PLW0603
    process = os.getpid()
    try:
        module = importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        raise _module_not_found(target, error) from None
    except BaseException as error:
        raise failure.failure(f"cannot import {target.module}", error, target.search) from None
    _check_not_shadowed(target, module)
    return module


def _module_not_found(target: Target, error: ModuleNotFoundError) -> BootError:
    """The error for a missing module: the target itself, or a module that the target imports."""
    missing = error.name or ""
    if not failure.frames(error) and f"{target.module}.".startswith(f"{missing}."):
        return BootError(f"module {target.module} not found: {_where_it_looked(target, missing)}")
    if not missing:
        return failure.failure(f"cannot import {target.module}", error, target.search)
    where, text = failure.place(error, target.search), failure.own_traceback(error)
    top = missing.partition(".")[0]
    advice = f"is it installed? ({failure.interpreter()})"
    if top != missing and (top in sys.modules or top == target.module.partition(".")[0]):
        advice = f"there is {top}, but not {missing}"
    what = f"it imports {missing}, which was not found{where}"
    return BootError(f"cannot import {target.module}: {what}: {advice}", text)


def _where_it_looked(target: Target, missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    if not parent:
        near = difflib.get_close_matches(last, _modules(target.search), n=3, cutoff=0.7)
        folders = " or ".join(_folder(folder) for folder in target.search)
        hint = f"; there is {' and '.join(near)}" if near else ""
        return f"no {missing} in {folders}, nor installed ({failure.interpreter()}){hint}"
    package = sys.modules.get(parent)
    inside = tuple(Path(folder) for folder in getattr(package, "__path__", ()))
    if not inside:
        return f"{parent} is the file {getattr(package, '__file__', None)}, not a package"
    near = difflib.get_close_matches(last, _modules(inside), n=3, cutoff=0.7)
    hint = f"; there is {' and '.join(f'{parent}.{name}' for name in near)}" if near else ""
    return f"no {last} in {' or '.join(_folder(folder) for folder in inside)}{hint}"


def _folder(folder: Path) -> str:
    """A folder's path, with a note if it cannot be read: the import system does not report that."""
    if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
        return str(folder)
    return f"{folder} (which {'this user may not read' if folder.is_dir() else 'is no folder'})"


def _modules(folders: tuple[Path, ...]) -> dict[str, bool]:
    """The names that can be imported from folders."""
    found = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                name = entry.name.removesuffix(".py")
                if name.isidentifier() and (name != entry.name or entry.is_dir()) and name != "__pycache__":
                    found[name] = True
    return found


def _check_not_shadowed(target: Target, module: ModuleType) -> None:
    """Raise BootError if another module has the same name (token, say) and is imported already."""
    top = target.module.partition(".")[0]
    file = getattr(sys.modules.get(top, module), "__file__", None)
    for folder in target.search:
        mine = [path for path in (folder / f"{top}.py", folder / top / "__init__.py") if path.is_file()]
        if not mine:
            continue
        if file is None or not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
            taken = f"{top} is already {file or 'built into Python'}"
            raise BootError(f"module {target.module} is not {mine[0]}: {taken}; rename your file")
        return
