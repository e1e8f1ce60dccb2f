"""Build the accelerator with AddressSanitizer and UndefinedBehaviorSanitizer, and run a command with it.

Usage: python scripts/sanitize.py FOLDER COMMAND...

In FOLDER is a `mooring` of links to src/mooring, and the accelerator beside them; PYTHONPATH has it first.
Needs gcc with its libasan and libubsan. Leaks are not looked for, since the interpreter has its own:
tests/fuzz counts objects instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "mooring"
# A double that does not fit into an integer is undefined as well, and not in `undefined`.
FLAGS = (
    "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
)


def build(folder: Path) -> None:
    """Make the folder anew. Raises SystemExit where the compiler fails, which setup.py forgives."""
    package = folder / "mooring"
    shutil.rmtree(folder, ignore_errors=True)
    package.mkdir(parents=True)
    for each in SOURCE.iterdir():
        if each.suffix not in {".so", ".pyc"} and each.name != "__pycache__":
            (package / each.name).symlink_to(each)
    places = ["--build-lib", str(folder), "--build-temp", str(folder / "objects")]
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *places],
        cwd=ROOT,
        check=True,
        env={**os.environ, "CC": "gcc", "CFLAGS": FLAGS, "LDFLAGS": FLAGS, "LDSHARED": "gcc -shared"},
    )
    if not list(package.glob("_accelerator*.so")):
        raise SystemExit("the accelerator was not built")


def _library(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    path = found.stdout.strip()
    if not os.path.isabs(path):
        raise SystemExit(f"gcc has no {name}: install it")
    return os.path.realpath(path)


def environ(folder: Path) -> dict[str, str]:
    """The variables with which Python finds the accelerator, and the sanitizers see all memory."""
    return {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONMALLOC": "malloc",
        # libstdc++ beside it: else the exceptions of other packages' C++ end the process.
        "LD_PRELOAD": " ".join(map(_library, ("libasan.so", "libubsan.so", "libstdc++.so"))),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def main(folder: Path, command: list[str]) -> None:
    """Build, then become the command."""
    build(folder)
    given = environ(folder)
    check = "import mooring._accelerator as a; print('sanitized:', a.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", check], env=given, check=True, capture_output=True, text=True
    )
    if str(folder) not in found.stdout:
        raise SystemExit(f"another accelerator is imported: {found.stdout}")
    print(found.stdout, end="", flush=True)
    os.execvpe(command[0], command, given)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
