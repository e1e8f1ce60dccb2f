"""stand_ins.py FOLDER: wheels that stand in for packages which cannot be built for this Python.

The meinheld image's users have `meinheld` in their requirements, and a frozen file has the greenlet that it
pins (0.4), which no Python of today compiles. pip takes a wheel in FOLDER for those (PIP_FIND_LINKS): for
meinheld images/stand-ins, for greenlet the release of today under the old number.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

MEINHELD = ("0.6.1", "1.0.0", "1.0.1", "1.0.2")
GREENLET = ("0.4.15", "0.4.16", "0.4.17")
SOURCES = Path("/build/stand-ins/meinheld")
LOCK = Path("/build/lock/flask.txt")

_METADATA = """Metadata-Version: 2.1
Name: meinheld
Version: {version}
Summary: A stand-in for meinheld, by mooring: served by gunicorn's threads
"""
_WHEEL = "Wheel-Version: 1.0\nGenerator: mooring\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_ENTRY_POINTS = "[gunicorn.workers]\ngunicorn_worker = meinheld.worker:MeinheldWorker\n"


def _write(path: Path, files: dict[str, bytes], record: str) -> None:
    """A wheel of these files, the same at each build, with the RECORD that it needs."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow((name, f"sha256={digest}", len(content)))
    writer.writerow((record, "", ""))
    when = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in {**files, record: rows.getvalue().encode()}.items():
            entry = zipfile.ZipInfo(name, when)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)


def meinheld(folder: Path) -> None:
    """The releases that frozen files name."""
    code = {f"meinheld/{path.name}": path.read_bytes() for path in sorted(SOURCES.glob("*.py"))}
    for version in MEINHELD:
        info = f"meinheld-{version}.dist-info"
        about = {
            "METADATA": _METADATA.format(version=version),
            "WHEEL": _WHEEL,
            "entry_points.txt": _ENTRY_POINTS,
            "stand-in": "mooring\n",
        }
        files = {**code, **{f"{info}/{name}": text.encode() for name, text in about.items()}}
        _write(folder / f"meinheld-{version}-py3-none-any.whl", files, f"{info}/RECORD")


def greenlet(folder: Path) -> None:
    """Today's greenlet, as the lock file has it, under the numbers that meinheld pins."""
    blocks = re.split(r"\n(?=\S)", LOCK.read_text())
    with tempfile.TemporaryDirectory() as work:
        lock = Path(work, "greenlet.txt")
        lock.write_text("".join(block + "\n" for block in blocks if block.startswith("greenlet==")))
        download = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
        subprocess.run([*download, "--require-hashes", "-r", lock, "-d", work], check=True)  # noqa: S603
        (made,) = Path(work).glob("greenlet-*.whl")
        real, tags = re.findall(r"greenlet-([^-]+)(-.*)\.whl", made.name)[0]
        with zipfile.ZipFile(made) as wheel:
            content = {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/RECORD")}
    for version in GREENLET:
        info = f"greenlet-{version}.dist-info"
        files = {name.replace(f"greenlet-{real}.dist-info", info): text for name, text in content.items()}
        about = files[f"{info}/METADATA"]
        files[f"{info}/METADATA"] = about.replace(
            f"\nVersion: {real}\n".encode(), f"\nVersion: {version}\n".encode()
        )
        kept = {
            n: t
            for n, t in files.items()
            if "/tests/" not in n and not n.endswith((".h", ".c", ".cpp", ".hpp"))
        }
        _write(folder / f"greenlet-{version}{tags}.whl", kept, f"{info}/RECORD")


if __name__ == "__main__":
    meinheld(Path(sys.argv[1]))
    greenlet(Path(sys.argv[1]))
