"""Scan source text without importing it: whether a file binds an application, and which one is Django's.

This does not check that the application works. In doubt, a file counts as holding one: the loader then
reports what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mooring.settings.import_string import APPLICATION_NAMES, FACTORY_NAMES

if TYPE_CHECKING:
    import ast

USUAL = frozenset(APPLICATION_NAMES + FACTORY_NAMES)

# Constructors of frameworks' applications. If one is called, the assignment counts under any name.
_CONSTRUCTORS = frozenset(
    (
        *("FastAPI", "Starlette", "Quart", "Litestar", "Sanic", "Flask", "APIFlask", "Bottle", "default_app"),
        *("App", "API", "Application", "FlaskApp", "AsyncApp", "ASGIApp", "WSGIApp", "WsgiToAsgi"),
        *("ProtocolTypeRouter", "get_wsgi_application", "get_asgi_application", "make_wsgi_app"),
    )
)

_DJANGO_SETTINGS = re.compile(rb"""DJANGO_SETTINGS_MODULE["']\s*(?:,|\]\s*=)\s*["']([\w.]+)["']""")
_DJANGO_ASGI = re.compile(rb"""^ASGI_APPLICATION\s*(?::[^=\n]*)?=\s*["']([\w.]+)\.(\w+)["']""", re.MULTILINE)


def holds_application(file: Path, names: Collection[str] = USUAL) -> bool:
    """Whether a file binds one of the names, or makes a known framework's application, at its top level.

    True also for a file that cannot be read or parsed.
    """
    import ast  # imported here: only mooring's wider search order needs it
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    usual = names is USUAL
    return any(_binds(statement, names, usual) for statement in _top_level(tree.body))


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module's top level, those below `if`, `try` and `with` included."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if type(statement).__name__ in ("If", "Try", "TryStar", "With"):
                yield from _top_level(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _top_level(handler.body)


def _binds(statement: ast.stmt, names: Collection[str], usual: bool) -> bool:
    import ast

    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name in names or name == "__getattr__"
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return any((alias.asname or alias.name) in names or alias.name == "*" for alias in aliases)
        case ast.Assign(targets=targets, value=value):
            nodes = [node for target in targets for node in ast.walk(target)]
            bound = {
                node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
            return not bound.isdisjoint(names) or (usual and _constructs(value))
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return value is not None and (name in names or (usual and _constructs(value)))
    return False


def _constructs(value: ast.expr) -> bool:
    """Whether an expression calls a known framework's constructor."""
    import ast

    if not isinstance(value, ast.Call):
        return False
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    return name in _CONSTRUCTORS


def django_application(base: Path, interface: str) -> tuple[str, str] | None:
    """The application of the Django project whose manage.py is in a folder, as (module, attribute), or None.

    Django's startproject writes both wsgi.py and asgi.py, and names only wsgi.py in the settings. So it is
    wsgi.py, unless the settings name an ASGI_APPLICATION, the interface is forced to asgi (by its setting, or
    by an engine that serves ASGI alone), or there is only asgi.py (https://docs.djangoproject.com/en/stable/howto/deployment/).
    """
    found = _DJANGO_SETTINGS.search(_text(base / "manage.py"))
    if not found:
        return None
    settings = found[1].decode()
    if interface != "wsgi":
        named = _asgi_application(base.joinpath(*settings.split(".")))
        if named:
            return named
    order = ("asgi", "wsgi") if interface == "asgi" else ("wsgi", "asgi")
    package = settings
    while package:
        package = package.rpartition(".")[0]
        for name in order:
            if base.joinpath(*package.split("."), f"{name}.py").is_file():
                return f"{package}.{name}".lstrip("."), "application"
    return None


def _asgi_application(settings: Path) -> tuple[str, str] | None:
    files = [
        settings.with_suffix(".py"),
        settings / "__init__.py",
        settings.parent / "base.py",
        settings / "base.py",
    ]
    for file in files:
        found = _DJANGO_ASGI.search(_text(file))
        if found:
            return found[1].decode(), found[2].decode()
    return None


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
