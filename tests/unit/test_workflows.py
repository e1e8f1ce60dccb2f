"""The forge's workflows run nothing but this repository's own commands, and publish what `make` builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKE = (ROOT / "Makefile").read_text() + (ROOT / "scripts/release.mk").read_text()
RELEASING = (ROOT / "docs/how-to/release.md").read_text()


def jobs(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text())["jobs"])


def commands(path: Path) -> list[str]:
    """Every line of every `run:` step."""
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    return [line for step in steps for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_step_is_a_command_that_runs_here_too(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKE, re.MULTILINE))
    assert commands(path)
    for command in commands(path):
        name, *words = re.sub(r"\$\{\{.*?\}\}", "X", command).split()
        if name == "make":
            assert {word for word in words if "=" not in word} <= targets, command
        else:
            assert f"`{command}`" in RELEASING, f"{command}: docs/how-to/release.md doesn't have it"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_say_what_they_may_and_when_they_end(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 180, name
        assert set(job.get("needs", [])) <= set(workflow["jobs"]), name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1")), step


def test_nothing_is_published_that_was_not_tested_and_scanned() -> None:
    publish = jobs(ROOT / ".github/workflows/publish.yml")
    writing = {name for name, job in publish.items() if "write" in job.get("permissions", {}).values()}
    assert writing == {"publish-images", "publish-package"}
    for name in writing:
        assert {"test", "images"} <= set(publish[name]["needs"]), name
    assert any(step.get("run", "").endswith(".ci/run") for step in publish["test"]["steps"])
    assert any("make scan" in step.get("run", "") for step in publish["images"]["steps"])


def test_every_python_is_published() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    offered = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    publish = jobs(ROOT / ".github/workflows/publish.yml")
    for name in ("images", "publish-images"):
        assert publish[name]["strategy"]["matrix"]["python"] == offered
    assert re.findall(r'"cp3(\d+)-\*"', project) == [version[2:] for version in offered]


def test_make_the_bake_file_and_the_dockerfile_have_the_same_images() -> None:
    listed = re.search(r"^IMAGES := ((?:.*\\\n)*.*)$", MAKE, re.MULTILINE)
    assert listed
    made = set(listed[1].replace("\\\n", " ").split())
    bake = (ROOT / "images/docker-bake.hcl").read_text()
    matrix = re.search(r"target = \[([^\]]*)\]", bake)
    assert matrix
    assert made == {
        *re.findall(r'"([^"]+)"', matrix[1]),
        *re.findall(r'^target "([a-z]+-[a-z]+)"', bake, re.M),
    }
    dockerfile = (ROOT / "images/Dockerfile").read_text()
    lower = dockerfile[dockerfile.index("FROM ${BASE} AS base\n") :]
    assert made == set(re.findall(r"^FROM \S+ AS (\S+)", lower, re.MULTILINE))
