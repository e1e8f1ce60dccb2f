"""What a row of the table is, and how a documented `docker run` line becomes a container of the tests."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from container import Container


@dataclass(frozen=True)
class Subject:
    """What a look is given: a running container, the seed it stands for, and the folder behind `$(pwd)`."""

    seed: str
    container: Container
    folder: str


Look = Callable[[Subject], None]


@dataclass(frozen=True)
class Dockerfile:
    """A documented Dockerfile: in which seeds, its text, and the looks at a container of it."""

    seeds: str
    heading: str
    text: str
    files: str
    looks: tuple[Look, ...]
    changed: str = ""
    """What differs from the documentation besides the image's name, and why."""


@dataclass(frozen=True)
class Run:
    """A documented `docker run` line.

    files: the application's, as `applications.files` knows them; more: lines after the Dockerfile's;
    options: of `docker run`, besides the line's; port: where the server listens, if the line publishes
    another one; instead: what is run where the line itself is broken.
    """

    seeds: str
    heading: str
    line: str
    looks: tuple[Look, ...]
    files: str = "plain"
    more: str = ""
    options: tuple[str, ...] = ()
    port: int = 0
    instead: str = ""
    changed: str = ""


@dataclass(frozen=True)
class Other:
    """A documented docker command that isn't `docker run`, and where it is held, or why it can't be."""

    seeds: str
    line: str
    where: str


@dataclass(frozen=True)
class Words:
    """A `docker run` line taken apart."""

    options: tuple[str, ...]
    port: int
    image: str
    command: tuple[str, ...]


def words(line: str, folder: str = "/nowhere") -> Words:
    """Take a line apart; `$(pwd)` is the folder.

    Left out is what the harness does itself: `-d`, the container's name (its own, since tests run side by
    side), and the host's port (a free one of 127.0.0.1 in place of 80).
    """
    rest = shlex.split(line.replace("$(pwd)", folder))
    assert rest[:2] == ["docker", "run"], line
    rest, options, port = rest[2:], [], 0
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "-d":
            continue
        value = rest.pop(0)
        if option == "-p":
            port = int(value.rpartition(":")[2])
        elif option != "--name":
            options += [option, value]
    return Words(tuple(options), port, rest[0] if rest else "", tuple(rest[1:]))


def same(text: str) -> str:
    """A command or a Dockerfile, for comparison: blanks, comments and empty lines don't count."""
    lines = (" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))
