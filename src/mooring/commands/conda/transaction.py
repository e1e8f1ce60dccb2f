"""Carry out what was chosen: fetch all of it, then change the environment, in one go as far as possible.

Everything is downloaded, unpacked and linked into a folder aside first. So a download that fails, an archive
that is broken and a full disk are found while the environment is still as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import rattler

from mooring.commands.conda.apart import begin
from mooring.commands.conda.places import Places
from mooring.commands.conda.solve import installed, is_stand_in, one_line
from mooring.commands.install.conda import compile_all
from mooring.errors import ToolError


class Changes(NamedTuple):
    """The packages that a transaction adds and removes."""

    added: list[rattler.RepoDataRecord]
    removed: list[rattler.RepoDataRecord]


def _key(record: rattler.RepoDataRecord) -> tuple[str, str, str, str]:
    return (record.name.normalized, str(record.version), str(record.build), str(record.subdir))


def changes(before: Sequence[rattler.RepoDataRecord], after: Sequence[rattler.RepoDataRecord]) -> Changes:
    """What has to be done to get from one set of packages to another."""
    old, new = {_key(each) for each in before}, {_key(each) for each in after}
    return Changes(
        [each for each in after if _key(each) not in old], [each for each in before if _key(each) not in new]
    )


async def carry_out(
    at: Places,
    prefix: Path,
    chosen: Sequence[rattler.RepoDataRecord],
    asked: Mapping[str, str],
    *,
    again: frozenset[str] = frozenset(),
    replaced: Path | None = None,
) -> Changes:
    """Make an environment have the chosen packages; `asked` are the user's specs by name.

    Packages named in `again` are linked anew; `replaced` is where the environment of before has gone. Raises
    ToolError.
    """
    before = installed(prefix)
    todo = changes(before, chosen)
    fetch = [
        *todo.added,
        *(each for each in chosen if each.name.normalized in again and not is_stand_in(each)),
    ]
    try:
        if fetch:
            await _rehearse(at, prefix, chosen, fetch)
        if not prefix.exists():
            begin(at, prefix, replaced)
        prefix.mkdir(parents=True, exist_ok=True)
        await rattler.install(
            list(chosen),
            prefix,
            cache_dir=at.kept,
            reinstall_packages=set(again) or None,
            execute_link_scripts=True,
            show_progress=False,
        )
    except Exception as error:  # py-rattler's have no common base
        raise ToolError(f"py-rattler: {one_line(error)}", 1) from None
    (prefix / "conda-meta").mkdir(exist_ok=True)  # an empty environment is one, too
    _note(prefix, asked)
    (prefix / "CACHEDIR.TAG").unlink(missing_ok=True)  # py-rattler's; backups would leave the environment out
    if todo.added:
        compile_all(prefix)
    return todo


async def _rehearse(
    at: Places,
    prefix: Path,
    chosen: Sequence[rattler.RepoDataRecord],
    fetch: Sequence[rattler.RepoDataRecord],
) -> None:
    """Download, unpack and link the new packages in a folder that is thrown away (apart.py)."""
    aside = at.scratch / "rehearsal"
    (aside / "conda-meta").mkdir(parents=True)
    python = [each for each in chosen if each.name.normalized == "python" and each not in fetch]
    for each in python:  # packages of Python files need to know which
        file = f"python-{each.version}-{each.build}.json"
        shutil.copy(prefix / "conda-meta" / file, aside / "conda-meta" / file)
    await rattler.install([*fetch, *python], aside, cache_dir=at.kept, show_progress=False)
    shutil.rmtree(aside)


def _note(prefix: Path, asked: Mapping[str, str]) -> None:
    """Keep what the user asked for, in conda's records: the next solution holds to it."""
    for file in prefix.glob("conda-meta/*.json"):
        record = rattler.PrefixRecord.from_path(file)
        spec = asked.get(record.name.normalized)
        if spec is not None:
            record.requested_specs = [spec]
            record.write_to_path(file, True)
    with (prefix / "conda-meta" / "history").open("a") as history:
        if asked:
            history.write(f"# update specs: {sorted(asked.values())}\n")
