"""The table of the older images' documentation forgets nothing, and makes nothing up."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from engine import TOOLS
from seeds.dockerfiles import DOCKERFILES, OTHERS, OURS
from seeds.lines import RUNS
from seeds.row import same, words

SEEDS = TOOLS.parent / "seeds"
FENCE = re.compile(r"^ *```([A-Za-z]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
Found = Counter[tuple[str, str, str]]


def sections(text: str) -> list[tuple[str, str]]:
    """A page's headings, each with the text below it; a `#` in a fenced block is no heading."""
    found, fenced = [("", "")], False
    for line in text.splitlines(keepends=True):
        fenced ^= line.strip().startswith("```")
        heading = re.match(r"#+ +(.*)", line)
        if heading and not fenced:
            found.append((heading[1].strip(), ""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Seed id to its text. It is other projects' documentation, so it isn't in this repository."""
    if not SEEDS.is_dir():
        pytest.skip(f"the older images' documentation is not beside this checkout ({SEEDS.name})")
    found = {path.name[:3]: path.read_text() for path in sorted(SEEDS.glob("*.md"))}
    assert list(found) == ["000", "001", "002", "003", "004"]
    return found


def test_every_dockerfile_of_the_pages_is_in_the_table(pages: dict[str, str]) -> None:
    documented: Found = Counter(
        (seed, heading, same(block))
        for seed, page in pages.items()
        for heading, text in sections(page)
        for language, block in FENCE.findall(text)
        if language.lower() == "dockerfile" or block.lstrip().startswith("FROM ")
    )
    table: Found = Counter((row.seeds, row.heading, same(row.text)) for row in DOCKERFILES)
    assert documented == table


def test_every_docker_line_of_the_pages_is_in_the_table(pages: dict[str, str]) -> None:
    documented: Found = Counter(
        (seed, heading, same(line))
        for seed, page in pages.items()
        for heading, text in sections(page)
        for line in re.sub(r"\\\n", " ", text).splitlines()
        if re.match(r" *docker run\b", line)
    )
    table: Found = Counter((seed, row.heading, same(row.line)) for row in RUNS for seed in row.seeds.split())
    assert documented == table


def test_every_other_docker_command_of_the_pages_is_accounted_for(pages: dict[str, str]) -> None:
    """Whatever else begins with `docker `, in a block or between backquotes."""
    for seed, page in pages.items():
        blocks = "".join(block for _, block in FENCE.findall(page)).replace("\\\n", " ")
        prose = re.findall(r"`(docker [^`]+)`", FENCE.sub("", page))
        said = {same(line) for line in blocks.splitlines() if re.search(r"\bdocker (?!run\b)[a-z]+\b", line)}
        said |= {same(line) for line in prose}
        known = {same(row.line) for row in OTHERS if seed in row.seeds}
        assert {line for line in said if not any(line.startswith(row) for row in known)} == set(), seed


def test_a_line_is_taken_apart_as_docker_does() -> None:
    line = 'docker run -d --name a -p 80:8080 -e MODULE_NAME="x.y" -v $(pwd):/app myimage /start-reload.sh'
    found = words(line, "/home/me")
    assert found.options == ("-e", "MODULE_NAME=x.y", "-v", "/home/me:/app")
    assert (found.port, found.image, found.command) == (8080, "myimage", ("/start-reload.sh",))


def test_what_is_changed_is_said() -> None:
    """A row that isn't run as it stands says why; every image of the pages has one of ours."""
    for row in RUNS:
        assert row.changed or not (row.instead or row.more or row.options or row.port), row.line
        assert words(row.instead or row.line).image, row.line
    assert {text.split()[1] for text in (row.text for row in DOCKERFILES)} <= set(OURS)


def test_the_pages_are_not_in_this_repository(pages: dict[str, str]) -> None:
    root = Path(__file__).resolve().parents[2]
    for name in (path.name for path in SEEDS.glob("*.md")):
        assert not [path for path in root.rglob(name) if ".venv" not in str(path)]
