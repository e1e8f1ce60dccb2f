"""Whether WORKER_CLASS chooses gunicorn: which worker classes exist and are installed. Imports none."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from mooring.errors import ConfigurationError
from mooring.settings import engines
from mooring.settings.resolve import PROFILE, Resolved

# gunicorn.workers.SUPPORTED_WORKERS, and what each needs beyond gunicorn.
WORKERS = {
    "sync": "",
    "gthread": "",
    "asgi": "",
    "gevent": "gevent",
    "gevent_wsgi": "gevent",
    "gevent_pywsgi": "gevent",
    "tornado": "tornado",
}
# Those of gunicorn's classes that serve WSGI alone; of others, only the name says something.
_WSGI = tuple(name for name in WORKERS if name != "asgi")
_WSGI_MODULES = ("gunicorn.workers.", "meinheld.", "egg:meinheld")
# These images had a worker class of their own, and the variable had no effect (docs/profiles.md).
_LENIENT = {"conda-starlette": "uvicorn", "meinheld-flask": "granian"}


def brings_gunicorn(resolved: Resolved, insisted: str, warnings: list[str]) -> bool:
    """Whether an explicit worker class is gunicorn's. `insisted` is the engine the user named, or auto.

    Raises ConfigurationError for a class of neither server. Adds to `warnings` if the class is ignored.
    """
    name, origin = resolved.settings.worker_class, resolved.origins["worker_class"]
    if name is None or origin.rank <= PROFILE:
        return False
    shown = f"{origin.text.removeprefix('env:')}={name}"
    engine = resolved.settings.engine
    known = engines.row(engine).worker_classes
    if known:
        if name not in known:
            raise ConfigurationError(f"{shown}: expected one of {', '.join(known)} with engine {engine}")
        return False
    if insisted not in {"auto", "gunicorn"}:
        warnings.append(f"{shown} is not used: the engine is {insisted}")
        return False
    lenient = _LENIENT.get(resolved.profile.name)
    problem = _problem(name, Path(resolved.settings.app_root or "."))
    if lenient and not problem and name.startswith("egg:") and _stands_in(name.removeprefix("egg:")):
        if insisted == "gunicorn":
            return True
        problem = "what stands in for it here are gunicorn's threads"
    if problem and lenient and insisted == "auto":
        warnings.append(f"{shown} is ignored ({problem}): {lenient} serves the application")
        return False
    if problem:
        raise ConfigurationError(f"{shown}: {problem}")
    return True


def interface(name: str | None) -> str:
    """What a worker class of gunicorn serves, by its name: asgi, wsgi, or auto where that does not say.

    Users' own classes count too: mysite.workers.RestrictedUvicornWorker serves ASGI.
    """
    if name is None:
        return "auto"
    if "uvicorn" in name.lower() or "asgi" in name.lower():
        return "asgi"
    return "wsgi" if name in _WSGI or name.startswith(_WSGI_MODULES) else "auto"


def _problem(name: str, root: Path) -> str:
    """Why gunicorn could not use a worker class; "" if it could."""
    for other, row in engines.REGISTRY.items():
        if name in row.worker_classes:
            return f"a worker class of {other}: set MOORING_ENGINE={other}"
    if name.startswith("egg:"):
        return _egg_problem(name.removeprefix("egg:"))
    top = WORKERS[name] if name in WORKERS else name.partition(".")[0]
    if "." not in name and name not in WORKERS:
        return f"no worker class of gunicorn: expected one of {', '.join(WORKERS)}, or a dotted name"
    if top and not _importable(top, root):
        return f"{top} is not installed"
    return ""


def _egg_problem(name: str) -> str:
    from importlib import metadata  # 20 ms, for this form only

    distribution = name.partition("#")[0]
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return f"{distribution} is not installed"
    return "" if _imports(distribution) else f"{distribution} cannot be imported by this Python"


def _stands_in(name: str) -> bool:
    """Whether a distribution is the image's own stand-in for one that cannot be built (images/stand-ins)."""
    from importlib import metadata

    return bool(metadata.distribution(name.partition("#")[0]).read_text("stand-in"))


def _imports(top: str) -> bool:
    """Whether a package can be imported, tried in a process of its own.

    Finding it is not enough: meinheld builds on Python 3.13, but cannot be loaded there.
    """
    import subprocess

    command = [sys.executable, "-c", f"import {top}"]
    silent = subprocess.DEVNULL
    done = subprocess.run(command, stdin=silent, stdout=silent, stderr=silent, check=False)  # noqa: S603
    return done.returncode == 0


def _importable(top: str, root: Path) -> bool:
    return PathFinder.find_spec(top, [str(root)]) is not None or importlib.util.find_spec(top) is not None
