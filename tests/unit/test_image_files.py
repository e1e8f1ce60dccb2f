"""The images' lock files, bake file and Makefile agree with pyproject.toml and the Dockerfile."""

from __future__ import annotations

import importlib.util
import re
import subprocess

import pytest
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGES = ROOT / "images"
LOCKS = {path.stem: path.read_text() for path in sorted((IMAGES / "lock").glob("*.txt"))}
PIN = re.compile(r"^([a-z0-9-]+)==([^ ]+)", re.MULTILINE)

_spec = importlib.util.spec_from_file_location("lock_images", ROOT / "scripts/lock_images.py")
assert _spec is not None
assert _spec.loader is not None
lock_images = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lock_images)


def test_the_locks_were_made_from_what_pyproject_says() -> None:
    for name, text in LOCKS.items():
        made = text.splitlines()[0]
        assert lock_images.digest() in made, f"images/lock/{name}.txt is old: make lock-images"


def test_every_requirement_is_met_by_its_pin() -> None:
    pins = dict(PIN.findall(LOCKS["server"] + LOCKS["lib"] + LOCKS["flask"]))
    for text in lock_images.own_requirements():
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


@pytest.mark.parametrize("name", ["server", "lib", "starlette", "fastapi", "flask"])
def test_images_have_the_versions_that_were_tested(name: str) -> None:
    tested = {
        canonicalize_name(line.partition("==")[0]): line.partition("==")[2].strip()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for package, version in PIN.findall(LOCKS[name]):
        assert tested.get(package, version) == version, package


def test_everything_is_hashed() -> None:
    for text in LOCKS.values():
        blocks = re.split(r"\n(?=[a-z])", text)[1:]
        assert blocks
        assert all("--hash=sha256:" in block for block in blocks)


def targets() -> set[str]:
    """The images: the stages of the Dockerfile's lower half."""
    images = (IMAGES / "Dockerfile").read_text().partition("# --- The images")[2]
    return set(re.findall(r"^FROM .* AS (\S+)", images, re.MULTILINE))


def test_make_and_bake_know_every_target() -> None:
    make = re.search(r"^IMAGES := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make is not None
    assert set(make.group(1).replace("\\", "").split()) == targets()
    bake = (IMAGES / "docker-bake.hcl").read_text()
    matrix = re.search(r"matrix = \{\s*target = \[(.*?)\]", bake, re.DOTALL)
    assert matrix is not None
    assert set(re.findall(r'"([^"]+)"', matrix.group(1))) | {"conda-starlette"} == targets()
    assert '"linux/amd64", "linux/arm64"' in bake
    assert bake.count("{") == bake.count("}")


@pytest.mark.parametrize(
    ("arguments", "python", "tag"),
    [([], "3.13", "mooring:base"), (["PYTHON=3.12"], "3.12", "mooring:base-python3.12")],
)
def test_make_images_names_the_python(arguments: list[str], python: str, tag: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", *arguments, "image-base"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"--build-arg PYTHON={python} " in said
    assert f"--tag {tag} ." in said
