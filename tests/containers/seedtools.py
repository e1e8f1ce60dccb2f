"""What the tests of the older images' documentation share."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from engine import run
from images import Images, write

AUTHORITIES = "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"
"""Makes Poetry trust what the system trusts, for machines behind a proxy with an authority of its own."""


@functools.cache
def locked(images: Images, target: str, project: str) -> str:
    """The poetry.lock of a pyproject.toml, made by an image's Poetry."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), {"pyproject.toml": project})
        tag = images.target(target)
        options = ("--rm", "--network", "host", "--volume", f"{folder}:/project", "--workdir", "/project")
        more = ("--env", AUTHORITIES, "--env", "POETRY_VIRTUALENVS_CREATE=false")
        done = run(images.docker, "run", *options, *more, tag, "poetry", "lock", "--no-interaction")
        assert done.returncode == 0, done.stdout + done.stderr
        return Path(folder, "poetry.lock").read_text()
