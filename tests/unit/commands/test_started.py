"""Whether mooring was started here, as `mooring health --if-started` asks, by a made-up /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from mooring.commands.started import was_started


def proc(folder: Path, **processes: str) -> str:
    """A /proc with some processes' command lines; p1="sh -c x" is process 1's."""
    for name, command in processes.items():
        process = folder / name.removeprefix("p")
        process.mkdir()
        words = command.split(" ", 2) if " -c " in command else command.split()
        (process / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    return str(folder)


@pytest.mark.parametrize(
    "command",
    [
        "python3 /usr/local/bin/mooring run",
        "/bin/sh /start.sh",
        "/bin/sh -c alembic upgrade head && mooring run --port 80",
        "bash -c sleep 10; exec /start-reload.sh",
        "/bin/sh /application_server/start_gunicorn.sh",
    ],
)
def test_mooring_is_there_or_is_to_come(tmp_path: Path, command: str) -> None:
    assert was_started(proc(tmp_path, p1=command))


@pytest.mark.parametrize(
    "command",
    [
        "python3 /usr/local/bin/celery -A tasks worker",
        "celery -A mooring_tasks worker --queues=mooring.default",
        "python3 main.py",
        "bash",
        "/bin/sh -c /opt/mooring/poetry/bin/flask run",
    ],
)
def test_another_command_runs(tmp_path: Path, command: str) -> None:
    assert not was_started(proc(tmp_path, p1=command, p7="sleep 60"))


def test_it_is_another_process_than_the_first(tmp_path: Path) -> None:
    assert was_started(
        proc(tmp_path, p1="/sbin/tini -- supervisord", p9="python3 /usr/local/bin/mooring run")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#!/bin/sh\nalembic upgrade head\nexec mooring run\n", True),
        ("#! /usr/bin/env bash\nset -e\nsleep 60\n. /start.sh\n", True),
        ("#!/bin/sh\nexec celery -A tasks worker\n", False),
        ("#!/usr/bin/env python3\nimport mooring\n", False),  # as the image's gunicorn command is
    ],
)
def test_the_script_that_process_1_runs_may_come_to_it(tmp_path: Path, text: str, expected: bool) -> None:
    folder = proc(tmp_path, p1="/bin/bash /code/entrypoint.sh web", p8="sleep 60")
    script = tmp_path / "1/root/code/entrypoint.sh"
    script.parent.mkdir(parents=True)
    script.write_text(text)
    assert was_started(folder) is expected
