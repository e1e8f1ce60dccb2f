"""The images under test: each target is built once a session, users' Dockerfiles on top of them.

Names are of this checkout only, since others may test on the same engine: `mooring:fastapi` in a Dockerfile
stands for this checkout's image.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path

from engine import ROOT, run

DOCKERFILE = ROOT / "images/Dockerfile"
FOLDER = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
NAME = re.compile(r"\bmooring:([a-z][a-z0-9.-]*)")
DEFAULT = "3.13"


class Images:
    """Builds images with an engine's client, and remembers them."""

    def __init__(self, docker: str) -> None:
        self.docker = docker
        self.built: dict[str, str] = {}

    def target(self, name: str, *options: str, python: str = DEFAULT) -> str:
        """The tag of a target of images/Dockerfile, or of its -slim variant, built if it was not yet."""
        label = name if python == DEFAULT else f"{name}-python{python}"
        if label not in self.built or options:
            tag = f"mooring-test-{FOLDER}:{label}"
            target = name.removesuffix("-slim")
            base = ("--build-arg", "DROPIN_BASE=slim") if target != name else ()
            arguments = ("--target", target, "--build-arg", f"PYTHON={python}", *base)
            self.build(ROOT, DOCKERFILE, tag, *arguments, *options)
            self.built[label] = tag
        return self.built[label]

    def user(self, dockerfile: str, files: dict[str, str | bytes] | None = None, *options: str) -> str:
        """The tag of a user's image: their Dockerfile, on this checkout's images, with the files beside it.

        A file whose name ends with `!` is made executable, under its name without it.
        """
        text = NAME.sub(lambda found: self.target(*_parts(found.group(1))), dockerfile)
        content = repr((text, sorted((files or {}).items()), options, FOLDER))
        key = hashlib.sha256(content.encode()).hexdigest()[:16]
        if key not in self.built:
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), {"Dockerfile": text, **(files or {})})
                self.build(folder, f"{folder}/Dockerfile", f"mooring-test-user-{FOLDER}:{key}", *options)
            self.built[key] = f"mooring-test-user-{FOLDER}:{key}"
        return self.built[key]

    def build(self, context: str | Path, dockerfile: str | Path, tag: str, *options: str) -> str:
        """`docker build`: what it printed. A failure fails the test with it."""
        command = (self.docker, "build", "--network", "host", "--tag", tag, "--file", dockerfile)
        done = run(*command, *options, context, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def refuses(self, dockerfile: str, files: dict[str, str | bytes] | None = None) -> str:
        """What a user's `docker build` that must fail prints."""
        text = NAME.sub(lambda found: self.target(*_parts(found.group(1))), dockerfile)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), {"Dockerfile": text, **(files or {})})
            done = run(self.docker, "build", "--network", "host", folder, timeout=900)
        assert done.returncode != 0, "it was built"
        return done.stdout + done.stderr

    def inspect(self, tag: str) -> dict:
        """What Docker knows of an image."""
        return json.loads(run(self.docker, "image", "inspect", tag).stdout)[0]

    def remove_users(self) -> None:
        """The users' images, away; the targets stay for the next session's cache."""
        for tag in self.built.values():
            if tag.startswith("mooring-test-user-"):
                run(self.docker, "image", "rm", "--force", tag)


def _parts(label: str) -> tuple[str, ...]:
    name, _, python = label.partition("-python")
    assert not python, f"mooring:{label}: name the Python with images.target(..., python=...)"
    return (name,)


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Files below a folder, by their paths; a path that ends with `!` is executable. Readable by anyone."""
    folder.chmod(0o755)
    for path, content in files.items():
        file = folder / path.removesuffix("!")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(0o755 if path.endswith("!") else 0o644)
    return folder
