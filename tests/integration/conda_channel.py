"""A conda channel of our own: packages as conda-build lays them out, indexed by py-rattler.

A program, run with py-rattler: conda_channel.py FOLDER. The package `python` is a stand-in that needs no
public channel: a pyvenv.cfg and a link to this machine's Python make the prefix a working environment with a
site-packages of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PYTHON = "{}.{}.{}".format(*sys.version_info[:3])
MINOR = "{}.{}".format(*sys.version_info[:2])
TIME = 1_700_000_000


def package(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str],
    *,
    depends: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    entry_points: Sequence[str] = (),
) -> None:
    """Write a package: of the folder's subdir, noarch where that is `noarch`."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        "name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends),
        "subdir": folder.name, "timestamp": TIME * 1000,
        **({"noarch": "python"} if folder.name == "noarch" else {}),
    }  # fmt: skip
    paths = []
    with tarfile.open(folder / f"{name}-{version}-0.tar.bz2", "w:bz2") as tar:
        for path, text in files.items():
            _add(tar, path, text)
            digest = hashlib.sha256(text.encode()).hexdigest()
            paths.append(
                {"_path": path, "path_type": "hardlink", "sha256": digest, "size_in_bytes": len(text)}
            )
        for path, link in (links or {}).items():
            _add(tar, path, "", link)
            paths.append({"_path": path, "path_type": "softlink", "size_in_bytes": 0})
        _add(tar, "info/index.json", json.dumps(index))
        _add(tar, "info/paths.json", json.dumps({"paths": paths, "paths_version": 1}))
        if folder.name == "noarch":
            noarch = {"type": "python", "entry_points": list(entry_points)}
            _add(tar, "info/link.json", json.dumps({"noarch": noarch, "package_metadata_version": 1}))


def _add(tar: tarfile.TarFile, path: str, text: str, link: str = "") -> None:
    info = tarfile.TarInfo(path)
    info.mtime, info.mode = TIME, 0o644
    if link:
        info.type, info.linkname = tarfile.SYMTYPE, link
        tar.addfile(info)
    else:
        info.size = len(text.encode())
        tar.addfile(info, io.BytesIO(text.encode()))


def main(channel: Path) -> None:
    from rattler import LockChannel, LockFile, LockPlatform, Subdir, index, solve

    here = str(Subdir.current())
    real = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for version, minor in ((PYTHON, MINOR), ("3.99.0", "3.99")):
        settings = f"home = {real.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
        links = {"bin/python": str(real), "bin/python3": "python", f"bin/python{minor}": "python"}
        package(channel / here, "python", version, {"pyvenv.cfg": settings}, links=links)
    for version in ("1.2", "1.3"):
        module = {"site-packages/purepkg.py": f"VERSION = '{version}'\n"}
        package(channel / "noarch", "purepkg", version, module, depends=["python >=3.9"])
    for name in ("builtpkg", "devpkg"):
        module = {f"lib/python{MINOR}/site-packages/{name}.py": "VERSION = '2.0'\n"}
        package(channel / here, name, "2.0", module, depends=[f"python {MINOR}.*"])

    hooks = {
        "etc/conda/activate.d/hooked.sh": 'export HOOKED="yes, it is"\n',
        "etc/conda/deactivate.d/hooked.sh": "unset HOOKED\n",
        "bin/.hooked-post-link.sh": '#!/bin/sh\necho "$PREFIX" >"$PREFIX/linked"\n',
    }
    package(channel / here, "hooked", "1", hooks)
    package(
        channel / "noarch", "broken", "1", {"site-packages/broken.py": "\n"}, depends=["python", "builtpkg"]
    )

    module = {"site-packages/pip/__init__.py": "main = lambda: print('pip of the channel')\n"}
    entry_points = ["pip = pip:main"]
    package(channel / "noarch", "pip", "99", module, depends=["python"], entry_points=entry_points)

    async def lock() -> None:
        """A pixi.lock with the environments `default` and `dev`, by py-rattler itself."""
        await index.index_fs(channel)
        platform = LockPlatform(here)
        file = LockFile([platform])
        for name, more in (("default", []), ("dev", ["devpkg"])):
            specs = [f"python {MINOR}.*", "purepkg <1.3", "builtpkg", *more]
            file.set_channels(name, [LockChannel(channel.as_uri())])
            for record in await solve([channel.as_uri()], specs):
                file.add_conda_package(name, platform, record)
        file.to_path(channel / "pixi.lock")

    asyncio.run(lock())
    (channel / "noarch" / "broken-1-0.tar.bz2").write_bytes(b"cut off")
    print(here)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # as conda.py does
