"""Write images/lock/*.txt: the images' packages, pinned, with hashes, for all Pythons and architectures.

    python scripts/lock_images.py        (needs uv; `make lock-images`)

`server` and `lib` are mooring's own dependencies: `server` has those that must be exactly as tested, `lib`
those that an application may replace by other versions (images/README.md). The other files are what an image
adds. Versions are those of constraints.txt where it has them, so the images have what the tests ran with.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "images" / "lock"
EXTRAS = ("hypercorn", "gunicorn", "debug")

# The packages that serve. An application that pins another version of one gets it, but mooring uses its own.
SERVER = (
    *("click", "granian", "gunicorn", "h11", "h2", "hpack", "httptools", "hypercorn", "hyperframe"),
    *("priority", "uvicorn", "uvicorn-worker", "uvloop", "watchfiles", "websockets", "wsproto"),
)

# What each set adds to mooring's own; a set of its own ("alone") repeats what it needs.
# gevent is for WSGI, and large: only where WSGI is served.
SETS: dict[str, tuple[str, ...]] = {
    "starlette": ("starlette",),
    "fastapi": ("fastapi",),
    "flask": ("flask", "gevent", "greenlet", "zope-event", "zope-interface"),
    "conda-starlette": ("starlette<1",),
    "inboard": ("inboard",),  # which its users import: authentication, logging
}
# What pip shows with all that it needs, servers too, as in the older images; mooring's servers stay apart.
# Each stands on the ones before.
SHOWN: dict[str, tuple[str, ...]] = {
    "uvicorn-standard": ("uvicorn[standard]", "gunicorn"),
    "fastapi-all": ("fastapi[all]",),
}
ALONE: dict[str, tuple[str, ...]] = {
    "poetry": ("poetry>=2",),
    # gunicorn 20, which frozen files of the meinheld image's users have, imports pkg_resources.
    "meinheld": ("setuptools<81",),
    "tools": ("setuptools>=77", "cyclonedx-python-lib>=11"),
}

# Nothing here runs on Windows, in a browser or on another interpreter.
_ELSEWHERE = re.compile(r"sys_platform == '(win32|emscripten)'|os_name == 'nt'")


def own_requirements() -> list[str]:
    """The requirements in pyproject.toml: mooring's dependencies and the extras that the images have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]


def digest() -> str:
    """A hash of everything that the lock files are made from, except constraints.txt."""
    return hashlib.sha256(repr((own_requirements(), SERVER, SETS, SHOWN, ALONE)).encode()).hexdigest()[:16]


def _compile(requirements: list[str], *options: str) -> dict[str, str]:
    """By distribution name, its lines: `name==version ; marker`, then its hashes."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.in")
        wanted.write_text("".join(f"{each}\n" for each in requirements))
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        more = ["--generate-hashes", "--no-annotate", "--no-header", *options, str(wanted)]
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
    blocks = re.split(r"\n(?=\S)", done.stdout.strip())
    found = {block.partition("==")[0]: block for block in blocks}
    return {name: block for name, block in found.items() if not _ELSEWHERE.search(block.partition("\n")[0])}


def _write(name: str, blocks: dict[str, str]) -> None:
    head = f"# Written by scripts/lock_images.py from inputs {digest()}; `make lock-images` renews it.\n"
    (LOCK / f"{name}.txt").write_text(head + "".join(f"{blocks[each]}\n" for each in sorted(blocks)))


def main() -> None:
    """Write all lock files."""
    LOCK.mkdir(exist_ok=True)
    tested = ("--constraint", str(ROOT / "constraints.txt"))
    everything = _compile(own_requirements(), *tested)
    own = {name: block for name, block in everything.items() if name not in SETS["flask"]}
    _write("server", {name: block for name, block in own.items() if name in SERVER})
    lib = {name: block for name, block in own.items() if name not in SERVER}
    _write("lib", lib)
    for name, wanted in SETS.items():
        options = () if any("<" in each for each in wanted) else tested
        found = _compile([*own_requirements(), *wanted], *options)
        added = {each for each in found if each not in everything or each in wanted}
        _write(name, {each: found[each] for each in added})
    there = set(lib)
    for name, wanted in SHOWN.items():
        found = _compile(list(wanted), *tested)
        _write(name, {each: found[each] for each in set(found) - there})
        there |= set(found)
    for name, wanted in ALONE.items():
        _write(name, _compile(list(wanted)))


if __name__ == "__main__":
    main()
