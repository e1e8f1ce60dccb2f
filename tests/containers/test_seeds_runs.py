"""The `docker run` lines of the older images' documentation, with only the image's name changed.

Each is run in the image of the seed's Dockerfile. `-d`, `--name` and the host's port are the harness's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from container import Starter
from engine import ROOT, run
from images import Images, write
from seeds.applications import files
from seeds.dockerfiles import OURS
from seeds.lines import RUNS
from seeds.row import Run, Subject, words

sys.path.insert(0, str(ROOT / "tests/integration"))
from certificates import Authority

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

# `myimage` of each seed: its first Dockerfile. 002's has no requirements here: test_seeds_dockerfiles.py.
MYIMAGE = {
    "000": "FROM mooring:hypercorn\nCOPY ./app /app\n",
    "001": "FROM mooring:conda-starlette\nCOPY ./app /app\n",
    "002": "FROM mooring:inboard-fastapi\nCOPY package /app/\n",
    "004": "FROM mooring:meinheld-flask\nCOPY ./app /app\n",
}
PLACEHOLDERS = ("myimage", "imagename")
CASES = [(seed, row) for row in RUNS for seed in row.seeds.split()]


@pytest.mark.parametrize(("seed", "row"), CASES, ids=[f"{seed} {row.line[11:]}" for seed, row in CASES])
def test_a_documented_line(images: Images, start: Starter, tmp_path: Path, seed: str, row: Run) -> None:
    context = files(seed, row.files)
    (tmp_path / "project").mkdir()
    folder = write(tmp_path / "project", context)
    if row.options:
        secrets = folder / "secrets"
        secrets.mkdir()
        Authority(secrets).issue(1)
    line = words(row.instead or row.line, str(folder))
    text = MYIMAGE[seed] + row.more if line.image in PLACEHOLDERS else f"FROM {OURS[line.image]}\n"
    slip = ("--publish", f"127.0.0.1::{line.port}") if row.port else ()
    options = tuple(option.replace("$(pwd)", str(folder)) for option in row.options)
    container = start(
        images.user(text, context),
        *(*line.options, *options, *slip),
        command=line.command,
        port=row.port or line.port,
    )
    for look in row.looks:
        look(Subject(seed, container, str(folder)))
    if container.state()["Running"]:
        container.stop()
    assert container.state()["ExitCode"] == 0, container.logs()


@pytest.mark.parametrize("row", [row for row in RUNS if row.instead], ids=lambda row: row.heading)
def test_a_line_that_is_run_otherwise_is_refused_by_docker_itself(docker: str, row: Run) -> None:
    done = run(docker, *row.line.split()[1:])
    assert done.returncode != 0
    assert "requires at least 1 argument" in done.stderr
