"""Mooring's own search order for the application, used if neither a setting nor a profile says where it is.

All places are in the application root. The first file that exists and binds a usual name (source_scan.py)
wins:
1. app/main.py, main.py, app.py, app/app.py, app/__init__.py
2. a Django project (manage.py): its wsgi.py, or its asgi.py, as source_scan.django_application says
3. asgi.py, wsgi.py, application.py, server.py
4. steps 1 to 3 again, below src/
5. the only package in src/, then the only package in the root: its main.py, asgi.py, wsgi.py, app.py,
   __init__.py

A src/ that is a package itself (src/__init__.py) is imported as `src.main`. A package with a settings.py is
taken as Django's: its wsgi.py comes first. Forcing the interface to wsgi puts wsgi.py before asgi.py. An
engine or a worker class that serves one interface alone forces it too (plan/interface.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mooring.application import source_scan

_FIRST = ("app/main.py", "main.py", "app.py", "app/app.py", "app/__init__.py")
_SECOND = ("asgi.py", "wsgi.py", "application.py", "server.py")
_IN_PACKAGE = ("main.py", "asgi.py", "wsgi.py", "app.py", "__init__.py")
_IN_DJANGO_PACKAGE = ("wsgi.py", "asgi.py", "main.py", "app.py", "__init__.py")
_NO_PACKAGES = (
    *("tests", "test", "testing", "docs", "doc", "scripts", "examples", "migrations", "alembic"),
    *("venv", "env", "node_modules", "static", "templates", "build", "dist", "src"),
)


class Candidate(NamedTuple):
    """A file that may hold the application, relative to the folder that it is imported from."""

    base: Path
    file: str
    attribute: str | None = None

    @property
    def path(self) -> Path:
        """The file's path."""
        return self.base / self.file

    @property
    def module(self) -> str:
        """The module's dotted name."""
        return self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def shown(self, root: Path) -> str:
        """The file's path for messages, relative to the application root."""
        return os.path.relpath(self.path, root)


def places(root: Path, interface: str) -> Iterator[Candidate]:
    """Every place in the search order, each once, whether or not the file exists."""
    seen = set()
    for place in _all(root, interface):
        if place.path not in seen:
            seen.add(place.path)
            yield place


def _all(root: Path, interface: str) -> Iterator[Candidate]:
    source = root / "src"
    base, prefix = (root, "src/") if (source / "__init__.py").is_file() else (source, "")
    yield from _in_folder(root, root, "", interface)
    yield from _in_folder(source, base, prefix, interface)
    yield from _in_only_package(source, base, prefix, interface)
    yield from _in_only_package(root, root, "", interface)


def _in_folder(folder: Path, base: Path, prefix: str, interface: str) -> Iterator[Candidate]:
    for file in _FIRST:
        yield Candidate(base, prefix + file)
    django = source_scan.django_application(folder, interface)
    if django:
        yield Candidate(folder, django[0].replace(".", "/") + ".py", django[1])
    for file in _ordered(_SECOND, interface):
        yield Candidate(base, prefix + file)


def _in_only_package(folder: Path, base: Path, prefix: str, interface: str) -> Iterator[Candidate]:
    packages = _packages(folder)
    if len(packages) == 1:
        django = (folder / packages[0] / "settings.py").is_file() and interface != "asgi"
        for file in _ordered(_IN_DJANGO_PACKAGE if django else _IN_PACKAGE, interface):
            yield Candidate(base, f"{prefix}{packages[0]}/{file}")


def _packages(folder: Path) -> list[str]:
    """The names of subfolders that hold a file of _IN_PACKAGE, without those in _NO_PACKAGES."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [
        name
        for name in names
        if name.isidentifier()
        and name not in _NO_PACKAGES
        and any((folder / name / file).is_file() for file in _IN_PACKAGE)
    ]


def _ordered(files: tuple[str, ...], interface: str) -> list[str]:
    """The files in order; wsgi.py comes before asgi.py if the interface is forced to wsgi."""
    if interface != "wsgi":
        return list(files)
    swap = {"wsgi.py": "asgi.py", "asgi.py": "wsgi.py"}
    return [
        swap.get(file, file) if files.index("asgi.py") < files.index("wsgi.py") else file for file in files
    ]
