"""Make the folder that this `conda` works on, with base in it: `python -m mooring.commands.conda.layout`.

The images' build runs it. base's Python is the image's own, as a virtual environment that sees the image's
packages; conda's records know it as a package, so that it can be replaced by conda's Python.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import stat
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from mooring.commands.conda.places import STAND_IN

_PROGRAM = """#!{python} -I
import sys

sys.path[:0] = {libraries!r}
from mooring.commands.conda.command import program

program(__file__)
"""
_ACTIVATE = """# source activate NAME
. '{at}/etc/profile.d/conda.sh'
conda {word} "$@"
"""
_PIP = """#!{at}/bin/python
import sys
from pip._internal.cli.main import main

sys.exit(main())
"""


def make(root: Path, at: str, python: str, libraries: Sequence[str]) -> None:
    """Write it to `root`, for the path `at` that it will have; `python` is the image's."""
    minor = "{}.{}".format(*sys.version_info[:2])
    packages = f"lib/python{minor}/site-packages"
    for folder in ("bin", "condabin", "conda-meta", "envs", "etc/profile.d", packages):
        (root / folder).mkdir(parents=True)
    _script(root / "bin/conda", _PROGRAM.format(python=python, libraries=list(libraries)))
    (root / "bin/mamba").symlink_to("conda")
    for word in ("activate", "deactivate"):
        _script(root / "bin" / word, _ACTIVATE.format(at=at, word=word))
    for name in (
        "conda",
        "mamba",
        "activate",
        "deactivate",
    ):  # for an environment that is active in base's place
        (root / "condabin" / name).symlink_to(f"../bin/{name}")
    hook = Path(__file__).with_name("conda.sh").read_text()
    (root / "etc/profile.d/conda.sh").write_text(hook.replace("@ROOT@", at))
    # also for conda's Python, once that is there: the image's packages, after its own
    image = sysconfig.get_path("purelib")
    (root / packages / "zz-image.pth").write_text(f"import site; site.addsitedir({image!r})\n")
    _stand_ins(root, at, python, minor)


def _stand_ins(root: Path, at: str, python: str, minor: str) -> None:
    """The Python of base, and its pip: the image's, and the records of them."""
    version = platform.python_version()
    home = Path(python).resolve()
    (root / "pyvenv.cfg").write_text(
        f"home = {home.parent}\ninclude-system-site-packages = true\nversion = {version}\n"
    )
    (root / "bin/python").symlink_to(home)
    links = ["bin/python", "bin/python3", f"bin/python{minor}"]
    for name in links[1:]:
        (root / name).symlink_to("python")
    scripts = ["bin/pip", "bin/pip3", f"bin/pip{minor}"]
    for name in scripts:
        _script(root / name, _PIP.format(at=at))
    _record(root, at, "python", version, links=links, files=["pyvenv.cfg"])
    _record(root, at, "pip", importlib.metadata.version("pip"), files=scripts)
    (root / "conda-meta/history").write_text("")


def _record(
    root: Path, at: str, name: str, version: str, *, links: Sequence[str] = (), files: Sequence[str]
) -> None:
    machine = platform.machine()
    paths = [{"_path": each, "path_type": "softlink"} for each in links]
    paths += [{"_path": each, "path_type": "hardlink"} for each in files]
    record = {
        "name": name,
        "version": version,
        "build": STAND_IN,
        "build_number": 0,
        "depends": [],
        "subdir": "linux-64" if machine == "x86_64" else f"linux-{machine}",
        "fn": f"{name}-{version}-{STAND_IN}.conda",
        "url": f"file://{at}/{name}-{version}-{STAND_IN}.conda",
        "channel": f"file://{at}",
        "files": [*links, *files],
        "paths_data": {"paths_version": 1, "paths": paths},
        "requested_specs": [],
    }
    (root / f"conda-meta/{name}-{version}-{STAND_IN}.json").write_text(json.dumps(record, indent=2))


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o755)


def main(words: Sequence[str]) -> None:
    """The command line: FOLDER, and where it will be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", default="/opt/conda")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--library", action="append", default=[])
    given = parser.parse_args(words)
    make(given.folder, given.at, given.python, given.library)


if __name__ == "__main__":
    main(sys.argv[1:])
