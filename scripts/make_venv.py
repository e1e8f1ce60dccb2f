"""Make the project's virtual environment, on a machine that needs only make and python3 >= 3.11.

Debian splits ensurepip off its python3: where it is missing, pip's own wheel is fetched from PyPI and used
directly.
Usage: python3 scripts/make_venv.py FOLDER
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
import venv
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _has_ensurepip() -> bool:
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return False
    return True


class _Links(HTMLParser):
    """The links of a package's page on an index, PEP 503."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of each link to a file that is not yanked: PEP 592."""
        facts = dict(attrs)
        if tag == "a" and facts.get("href") and "data-yanked" not in facts:
            self.found.append(str(facts["href"]))


def _version(link: str) -> list[int]:
    name = link.partition("#")[0].rsplit("/", 1)[-1]
    return [int(part) for part in name.split("-")[1].split(".") if part.isdigit()]


def _pip_wheel(folder: Path) -> Path:
    """Download pip's newest wheel and check its hash. Python can run pip from the wheel itself."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    if not index.startswith("https://"):
        raise SystemExit(f"PIP_INDEX_URL={index!r}: expected an https address; or install python3-venv")
    page, links = f"{index}/pip/", _Links()
    with urllib.request.urlopen(page, timeout=60) as answer:
        links.feed(answer.read().decode())
    wheels = [
        link
        for link in links.found
        if link.partition("#")[0].endswith("-py3-none-any.whl") and "#sha256=" in link
    ]
    if not wheels:
        raise OSError(f"{page} lists no wheel with a hash")
    address, _, digest = max(wheels, key=_version).partition("#sha256=")
    with urllib.request.urlopen(urllib.parse.urljoin(page, address), timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != digest:
        raise SystemExit(f"{address}: its SHA-256 is not the one that {page} gives")
    target = folder / address.rsplit("/", 1)[-1]
    target.write_bytes(content)
    return target


def _ensurepip_from_debian() -> bool:
    """Install Debian's python3-venv, if this is Debian and the user is root. Returns whether that worked."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print("installing python3-venv", flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "python3-venv"]):
        command = ["apt-get", "-qq", *words]
        if subprocess.run(command, check=False, env=environ, stdout=subprocess.DEVNULL).returncode:
            return False
    return True


def _install_pip(folder: Path, python: Path) -> None:
    try:
        wheel = _pip_wheel(folder)
    except OSError as error:
        if _ensurepip_from_debian():
            subprocess.run(
                [python, "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL
            )
            return
        raise SystemExit(
            f"this python3 has no ensurepip, and pip could not be fetched ({error}); install python3-venv"
        ) from None
    subprocess.run([python, f"{wheel}/pip", "install", "--quiet", str(wheel)], check=True)
    wheel.unlink()


def main(folder: Path) -> None:
    """Make the environment if it does not exist, then install the project with all engines and its tools."""
    if sys.version_info < (3, 11):
        raise SystemExit(
            f"mooring needs Python 3.11; this is {sys.version.split()[0]}: try make PYTHON=python3.13"
        )
    python = folder / "bin" / "python"
    if not python.exists():
        with_pip = _has_ensurepip()
        print(f"making {folder} with Python {sys.version.split()[0]}", flush=True)
        venv.create(folder, with_pip=with_pip, symlinks=True)
        if not with_pip:
            _install_pip(folder, python)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip>=25.1"], check=True)
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    print("installing mooring, its engines and its test tools (a minute or two)", flush=True)
    editable = [*constraints, "--editable", f"{ROOT}[all]", "--group", f"{ROOT / 'pyproject.toml'}:dev"]
    subprocess.run([*pip, "install", "--quiet", *editable], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
