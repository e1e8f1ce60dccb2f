"""The forge's workflows run nothing but this repository's own commands, and publish what `make` builds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT

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


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_make_publish_and_the_bake_file_give_the_same_tags(python: str) -> None:
    command = ["make", "--dry-run", "publish", f"PYTHON={python}", "REGISTRY=here", "IMAGES=base"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pushed = re.findall(r"for tag in (.*?);", said)[0].split()
    bake = (ROOT / "images/docker-bake.hcl").read_text()
    version = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    values = {"REGISTRY": "", "target": "base", "PYTHON": python, "VERSION": version}
    rendered = [
        re.sub(r"\$\{(\w+)\}", lambda name: values[name[1]], tag).removeprefix("mooring:")
        for tag in re.findall(r'"(\$\{REGISTRY\}mooring:[^"]*)"', bake)
    ]
    assert pushed == (rendered if python == "3.13" else rendered[1:])
