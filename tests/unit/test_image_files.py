"""The images' lock files, bake file and Makefile agree with pyproject.toml and the Dockerfile."""

from __future__ import annotations

import importlib.util
import re
import subprocess

import pytest
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mooring.application.discovery import demo_file
from mooring.settings.profiles import PROFILES

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


@pytest.mark.parametrize("name", ["server", "lib", "starlette", "fastapi", "flask", "fastapi-all"])
def test_images_have_the_versions_that_were_tested(name: str) -> None:
    tested = {
        canonicalize_name(line.partition("==")[0]): line.partition("==")[2].strip()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for package, version in PIN.findall(LOCKS[name]):
        assert tested.get(package, version) == version, package


def test_the_uvicorn_that_worker_classes_are_mended_for_is_the_one_that_is_required() -> None:
    source = (ROOT / "src/mooring/engines/gunicorn/worker_classes.py").read_text()
    release = re.findall(r'^UVICORN = "(.*)"', source, re.MULTILINE)[0]
    wanted = next(Requirement(text) for text in lock_images.own_requirements() if text.startswith("uvicorn>"))
    assert wanted.specifier.contains(f"{release}0")
    assert not wanted.specifier.contains(f"0.{int(release.split('.')[1]) + 1}.0")


def test_everything_is_hashed() -> None:
    for text in LOCKS.values():
        blocks = re.split(r"\n(?=[a-z])", text)[1:]
        assert blocks
        assert all("--hash=sha256:" in block for block in blocks)


def targets() -> set[str]:
    """The images: the stages of the Dockerfile's lower half."""
    images = (IMAGES / "Dockerfile").read_text().partition("# --- The images")[2]
    return set(re.findall(r"^FROM .* AS (\S+)", images, re.MULTILINE))


def on_the_full_python() -> set[str]:
    """The images whose base DROPIN_BASE names, by themselves or through another."""
    stages = re.findall(r"^FROM (\S+) AS (\S+)", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    bases = {name: base for base, name in stages}

    def full(name: str) -> bool:
        return bases[name] == "${DROPIN_BASE}" or (bases[name] in bases and full(bases[name]))

    return {name for name in targets() if full(name)}


def test_make_and_bake_know_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    slim = re.findall(r"^SLIM := ((?:.*\\\n)*.*)", text, re.MULTILINE)[0].replace("\\", "").split()
    make = re.search(r"^IMAGES := ((?:.*\\\n)*.*)", text, re.MULTILINE)
    assert make is not None
    made = set(make.group(1).replace("\\", "").replace("$(SLIM:%=%-slim)", "").split())
    assert made == targets()
    bake = (IMAGES / "docker-bake.hcl").read_text()
    matrix, slims = re.findall(r"matrix = \{\s*target = \[(.*?)\]", bake, re.DOTALL)
    assert set(re.findall(r'"([^"]+)"', matrix)) | {"conda-starlette"} == targets()
    assert re.findall(r'"([^"]+)"', slims) == slim
    assert set(slim) == on_the_full_python(), "what stands on the full Python has a tag without its tools"
    assert '"linux/amd64", "linux/arm64"' in bake
    assert bake.count("{") == bake.count("}")


def test_the_older_images_have_no_health_check_and_the_modern_ones_have() -> None:
    """Nor do they stand on an image that has one: `docker run IMAGE celery` must not look unhealthy."""
    text = (IMAGES / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n((?:(?!FROM ).*\n)*)", text, re.MULTILINE))
    bases = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)", text, re.MULTILINE)}
    checked = {name for name in targets() if "\nHEALTHCHECK" in "\n" + stages[name]}
    while more := {name for name in targets() - checked if bases[name] in checked}:
        checked |= more
    dropins = text.partition("# --- Drop-ins for the older images")[2]
    assert checked == targets() - set(re.findall(r"^FROM .* AS (\S+)", dropins, re.MULTILINE))


def test_the_demo_lies_where_the_older_images_had_it() -> None:
    """With the content by which mooring knows it, and with what the profile serves."""
    found = {path.parts[-3]: path.read_text() for path in IMAGES.glob("root/*/app/main.py")}
    for folder, text in found.items():
        family = folder.removesuffix("-json")
        profile = {"inboard": "inboard-base"}.get(folder, folder if family == folder else f"{family}-fastapi")
        assert text == demo_file(PROFILES[profile].demo)
    with_one = {name for name, profile in PROFILES.items() if profile.older and profile.demo}
    assert {name.partition("-")[0] for name in with_one} == {name.partition("-")[0] for name in found}


def test_the_slim_tags_are_built_from_the_same_target() -> None:
    command = ["make", "--dry-run", "--no-print-directory", "image-inboard-base-slim", "image-inboard-base"]
    slim, full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "--tag mooring:inboard-base-slim ."
    )
    assert "--target inboard-base \\" in slim
    assert "--build-arg DROPIN_BASE=slim" in slim
    assert "DROPIN_BASE" not in full


@pytest.mark.parametrize(
    ("arguments", "python", "tag"),
    [([], "3.13", "mooring:base"), (["PYTHON=3.12"], "3.12", "mooring:base-python3.12")],
)
def test_make_images_names_the_python(arguments: list[str], python: str, tag: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", *arguments, "image-base"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"--build-arg PYTHON={python} " in said
    assert f"--tag {tag} ." in said
