"""Find the application: from the settings, else by the profile's search order, else by mooring's wider one.

This runs in the supervisor, so it uses the standard library only and imports nothing of the application.
Whether the module has the attribute, and what kind of object that is: loader.py. The wider search order:
search_order.py.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mooring.application import search_order, source_scan
from mooring.errors import ApplicationError
from mooring.settings import import_string

if TYPE_CHECKING:
    from mooring.settings.resolve import Resolved

_DEMOS = ("app", "json_app", "wsgi_app")
_NAME_IT = "name it: mooring run MODULE:ATTRIBUTE, or APP_MODULE=MODULE:ATTRIBUTE"
_DEMO_TEXT = '''"""The demo, served until there is an application: remove it, or put yours in its place."""

from mooring import demo

app = demo.NAME
'''
DEMO = "the demo"
"""The reason of a target where the demo is served, because there is no application."""
DEMO_FILE = "main.py"
"""Where the older images' demo lay, below the application root: their users' Dockerfiles remove it there."""


class Target(NamedTuple):
    """Where the application is.

    If `attribute` is None, the loader looks for the usual names. `origin` is the origin of the setting that
    names the application ("cli", "env:APP_MODULE", "profile:hypercorn", "default"), `reason` one phrase for
    people, `search` the folders to put first on sys.path, `warning` one line for the log or empty.
    """

    module: str
    attribute: str | None
    origin: str
    reason: str
    search: tuple[Path, ...]
    warning: str = ""

    def __str__(self) -> str:
        return self.module if self.attribute is None else f"{self.module}:{self.attribute}"


def find(resolved: Resolved, interface: str | None = None) -> Target:
    """The application that the settings name or that a search finds.

    The search prefers asgi.py or wsgi.py where `interface` is asgi or wsgi (None: as the setting says).
    Raises ApplicationError, which lists every place that was searched, if nothing is found.
    """
    root = Path(resolved.settings.app_root or ".").absolute()
    app, module = resolved.settings.app, resolved.settings.module_name
    variable = resolved.settings.variable_name
    if app is not None and (module is None or resolved.rank("app") >= resolved.rank("module_name")):
        return _from_app(resolved, app, variable, root)
    if module is not None:
        return _from_module(resolved, module, variable, root)
    if resolved.profile.modules:
        return _profile_order(resolved, variable, root)
    return _wide_order(resolved, variable, root, interface or resolved.settings.interface)


# What the settings name


def _from_app(resolved: Resolved, text: str, variable: str | None, root: Path) -> Target:
    parsed = import_string.parse(text)
    attribute = parsed.attribute
    if variable and (attribute is None or resolved.rank("variable_name") > resolved.rank("app")):
        attribute = variable
    origin = resolved.origins["app"].text
    reason = "named on the command line" if origin == "cli" else f"named by {resolved.origin_name('app')}"
    if parsed.path:
        module, search = _from_path(parsed.path, root)
    else:
        module, search = parsed.module, _search(parsed.module, root)
    return Target(module, attribute, origin, reason, search)


def _from_module(resolved: Resolved, module: str, variable: str | None, root: Path) -> Target:
    reason = f"named by {resolved.origin_name('module_name')}"
    if variable:
        reason += f" and {resolved.origin_name('variable_name')}"
    return Target(module, variable, resolved.origins["module_name"].text, reason, _search(module, root))


def _search(module: str, root: Path) -> tuple[Path, ...]:
    """The folders to search: the root, and its src folder first if only src has the module's first part."""
    top = module.partition(".")[0]
    source = root / "src"
    holders = [
        folder for folder in (root, source) if (folder / top).is_dir() or (folder / f"{top}.py").is_file()
    ]
    return (source, root) if holders == [source] else (root,)


def _from_path(path: str, root: Path) -> tuple[str, tuple[Path, ...]]:
    """A file's module name and the folders to import it from. Raises ApplicationError if there is no file.

    The name of a file below the root is the dotted path from the root, or from src if src is not a package.
    If the file's folder has no __init__.py, it is searched too: its modules can then import each other as
    with `python PATH/TO/FILE.py`.
    """
    candidates = list(dict.fromkeys(Path(os.path.abspath(base / path)) for base in (root, Path.cwd())))
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        looked = " or ".join(str(candidate) for candidate in candidates)
        raise ApplicationError(f"no application found: there is no file {looked}")
    base = root
    if file.is_relative_to(root / "src") and not (root / "src/__init__.py").is_file():
        base = root / "src"
    if file.is_relative_to(base):
        parts = file.relative_to(base).with_suffix("").parts
        if all(part.isidentifier() for part in parts):
            own = () if (file.parent / "__init__.py").is_file() else (file.parent,)
            return _dotted(parts), tuple(dict.fromkeys((base, root, *own)))
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        folder = folder.parent
    return _dotted(file.relative_to(folder).with_suffix("").parts), tuple(dict.fromkeys((folder, root)))


def _dotted(parts: tuple[str, ...]) -> str:
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


# The search orders


def _profile_order(resolved: Resolved, variable: str | None, root: Path) -> Target:
    origin = f"profile:{resolved.profile.name}"
    files = {module: module.replace(".", "/") + ".py" for module in resolved.profile.modules}
    for module, file in files.items():
        if (root / file).is_file() and not _is_demo(root / file):
            return Target(module, variable, origin, f"found {file} in {root}", (root,))
    return _demo(resolved, root, [str(root / file) for file in files.values()])


def _demo(resolved: Resolved, root: Path, looked: list[str]) -> Target:
    """The profile's demo. Raises ApplicationError if there is none, or if the root holds a Python file."""
    profile = resolved.profile
    if not profile.demo or _holds_python(resolved, root):
        raise _nothing(root, looked)
    places = ", ".join(looked)
    other = "other " if (root / DEMO_FILE).is_file() else ""
    warning = f"no application: serving the demo, as {root} holds no {other}Python file (looked for {places})"
    return Target("mooring.demo", profile.demo, f"profile:{profile.name}", DEMO, (root,), warning)


def demo_file(name: str) -> str:
    """The content of the file in an image that has the demo `name` of mooring.demo."""
    return _DEMO_TEXT.replace("NAME", name)


def _is_demo(path: Path) -> bool:
    """Whether a file is an image's demo, by its content: it is no application."""
    try:
        if path.name != DEMO_FILE or path.stat().st_size > len(_DEMO_TEXT) + 20:
            return False
        return path.read_bytes() in [demo_file(name).encode() for name in _DEMOS]
    except OSError:
        return False


def _holds_python(resolved: Resolved, root: Path) -> bool:
    """Whether a Python file lies anywhere below the root; also true if a folder there cannot be read.

    A pre-start hook and a server's configuration do not count: the images allow them without an application.
    Nor does the demo's own file.
    """
    settings, profile = resolved.settings, resolved.profile
    named = (settings.pre_start_path, settings.gunicorn_conf, settings.hypercorn_conf)
    names = (*profile.prestart_names, *profile.conf_names, *(name for name in named if name))
    aside = {os.path.join(root, name) for name in names}
    aside |= {str(root / DEMO_FILE)} if _is_demo(root / DEMO_FILE) else set()
    unreadable: list[OSError] = []
    for folder, _, files in os.walk(root, onerror=unreadable.append):
        if any(name.endswith(".py") and os.path.join(folder, name) not in aside for name in files):
            return True
    return bool(unreadable)


def _wide_order(resolved: Resolved, variable: str | None, root: Path, interface: str) -> Target:
    names = source_scan.USUAL if variable is None else {import_string.parse_attribute(variable).names[0]}
    looked: list[str] = []
    without: list[search_order.Candidate] = []
    for place in search_order.places(root, interface):
        if not place.path.is_file() or _is_demo(place.path):
            looked.append(place.shown(root))
        elif place.attribute is not None or source_scan.holds_application(place.path, names):
            return _found(place, variable, root)
        else:
            looked.append(f"{place.shown(root)} (binds none of {', '.join(sorted(names))})")
            without += [place] if place.path.name != "__init__.py" else []
    if len(without) == 1:
        return _found(without[0], variable, root)
    return _demo(resolved, root, looked)


def _found(place: search_order.Candidate, variable: str | None, root: Path) -> Target:
    reason = f"found {place.shown(root)} in {root}"
    search = tuple(dict.fromkeys((place.base, root)))
    return Target(place.module, variable or place.attribute, "default", reason, search)


def _nothing(root: Path, looked: list[str]) -> ApplicationError:
    missing = "" if root.is_dir() else ", which is no folder"
    return ApplicationError(
        f"no application found in {root}{missing}: looked for {', '.join(looked)}; {_NAME_IT}"
    )


def check_found(target: Target) -> None:
    """Raise ApplicationError if the target's module does not exist. Imports nothing.

    This is for live reload: saving a file cannot repair a misspelt name. It can repair a broken module, so
    live reload waits for that.
    """
    top, *rest = target.module.split(".")
    own = [folder for folder in target.search if (folder / top).is_dir() or (folder / f"{top}.py").is_file()]
    if own and (not rest or any(_is_module(folder.joinpath(top, *rest)) for folder in own)):
        return
    if not own and _is_installed(top):
        return
    looked = " or ".join(map(str, target.search))
    raise ApplicationError(f"no application found: there is no module {target.module} in {looked}")


def _is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
