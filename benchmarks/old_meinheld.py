"""Requests per second of Flask: the profile meinheld-flask against the older image, both with access log.

The older image ran gunicorn 20.1 with meinheld 1.0.2 and Flask 2.0.1 on Python 3.9; here they are in a
virtual environment below the working folder. As in throughput.py: one core for the server, the other for
wrk; two workers each, as the image starts for one core. Needs wrk, two cores, a C compiler and Python 3.9.
Usage: python benchmarks/old_meinheld.py --python PYTHON3.9 [--runs 7] [--seconds 3]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
from pathlib import Path

import throughput
from start_time import APPS

OLD = ["setuptools<81", "gunicorn==20.1.0", "meinheld==1.0.2", "flask==2.0.1", "werkzeug<2.1"]


def environment(python: str, folder: Path) -> Path:
    """Install the older image's packages; return the folder of their commands."""
    if not (folder / "bin/gunicorn").exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
        for package in (["setuptools<81", "wheel"], OLD):
            subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", *package], check=True)
    return folder / "bin"


def main() -> None:
    """Measure the two in alternating runs, and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True)
    parser.add_argument("--folder", type=Path, default=Path("results/meinheld"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    old = environment(options.python, options.folder.absolute())
    gunicorn = [str(old / "gunicorn"), "-k", "egg:meinheld#gunicorn_worker", "--keep-alive", "120"]
    ours = ["mooring", "run", "--profile", "meinheld-flask", "--app-root", str(APPS), "--workers", "2"]
    print(f"mooring on Python {platform.python_version()}; {', '.join(OLD[1:])} on {options.python}")
    throughput.compare(
        {
            "old image: gunicorn with meinheld": [
                *gunicorn,
                *("--access-logfile", "-", "-w", "2", "-b", "127.0.0.1:{port}", "hello_flask:app"),
            ],
            "profile meinheld-flask: granian": [
                *ours,
                *("--access-log", "-", "--host", "127.0.0.1", "--port", "{port}", "hello_flask:app"),
            ],
        },
        options.runs,
        options.seconds,
    )


if __name__ == "__main__":
    main()
