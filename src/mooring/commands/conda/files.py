"""The files that name packages: lists of specs, explicit lists of archives, environment.yml, locks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rattler
import rattler.exceptions
import yaml

from mooring.commands.conda.places import Places
from mooring.commands.conda.solve import one_line
from mooring.commands.install.conda import RefusedError, pip_line, read_lock
from mooring.errors import ConfigurationError, ToolError

_LOCKS = ("-lock.yml", "-lock.yaml", "pixi.lock")
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{32}|[0-9a-f]{64})$")


@dataclass(frozen=True)
class Content:
    """What a file names: specs to solve, or records that are to be installed as they are."""

    path: Path
    specs: tuple[str, ...] = ()
    records: tuple[rattler.RepoDataRecord, ...] = ()
    channels: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    name: str = ""
    prefix: str = ""
    variables: Mapping[str, str] | None = None


async def read(file: str, at: Places) -> Content:
    """Read a file of any form. Raises ConfigurationError, ToolError."""
    path = Path(file).expanduser().absolute()
    try:
        if path.name.endswith(_LOCKS):
            lock = read_lock(path, ())
            return Content(path, records=tuple(lock.records), pip=tuple(lock.pip))
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yml", ".yaml"):
            return _environment(path, yaml.safe_load(text), at)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except RefusedError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    except (OSError, ValueError, yaml.YAMLError, rattler.exceptions.ParseCondaLockError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {one_line(error)}") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if "@EXPLICIT" in lines:
        return Content(path, records=tuple(await explicit(lines[lines.index("@EXPLICIT") + 1 :], at.kept)))
    return Content(path, specs=tuple(line.partition(" #")[0].strip() for line in lines))


def _environment(path: Path, content: Any, at: Places) -> Content:
    if not isinstance(content, dict) or not isinstance(content.get("dependencies") or [], list):
        raise ConfigurationError(f"{path}: it is no environment: a name, channels and a list of dependencies")
    specs: list[str] = []
    pip: list[str] = []
    for each in content.get("dependencies") or []:
        if isinstance(each, str):
            specs.append(each)
        elif isinstance(each, dict) and set(each) == {"pip"} and isinstance(each["pip"] or [], list):
            pip += [pip_line(str(line), path.parent) for line in each["pip"] or []]
        else:
            raise ConfigurationError(
                f"{path}: dependencies: {each!r} is neither a spec nor `pip:` with a list"
            )
    channels = content.get("channels") or []
    values = content.get("variables") or {}
    if not isinstance(channels, list) or not isinstance(values, dict):
        raise ConfigurationError(f"{path}: channels is a list, variables are names with values")
    return Content(
        path,
        specs=tuple(specs),
        channels=tuple(str(each) for each in channels),
        pip=tuple(pip),
        name=str(content.get("name") or ""),
        prefix=str(content.get("prefix") or ""),
        variables={str(key): str(value) for key, value in values.items()},
    )


async def explicit(urls: Sequence[str], kept: Path) -> list[rattler.RepoDataRecord]:
    """The packages at these addresses. Their channels' index says what they are; else they themselves do."""
    gateway = rattler.Gateway(cache_dir=kept / "cache")
    found = []
    for line in urls:
        url, _, digest = line.partition("#")
        where, _, file = url.rpartition("/")
        channel, _, subdir = where.rpartition("/")
        if "://" not in url:
            url, channel = Path(url).absolute().as_uri(), ""
        records = []
        try:
            if channel:
                spec = file.rpartition("-")[0].rpartition("-")[0]
                records = await _query(gateway, [channel], [subdir], spec)
        except (rattler.exceptions.GatewayError, rattler.exceptions.FetchRepoDataError, OSError):
            pass  # no index
        except rattler.exceptions.InvalidMatchSpecError:
            raise ConfigurationError(f"{url} is no conda package") from None
        match = [each for each in records if each.url == url]
        try:
            match = match or await _query(gateway, [], [rattler.Subdir.current(), "noarch"], url)
        except Exception as error:  # py-rattler's have no common base
            raise ToolError(f"{url}: {one_line(error)}", 1) from None
        if not match:
            raise ToolError(f"{url}: there is no such package", 1)
        _check(match[0], digest)
        found.append(match[0])
    return found


async def _query(
    gateway: rattler.Gateway, sources: list[str], subdirs: Sequence[Any], spec: str
) -> list[rattler.RepoDataRecord]:
    found = await gateway.query(sources, subdirs, [spec], recursive=False)
    return [each for records in found for each in records]


def _check(record: rattler.RepoDataRecord, digest: str) -> None:
    """Compare the index's hash with the one in the list; the download is compared with the index's."""
    wanted = _HASH.match(digest)
    if wanted is None:
        return
    known = record.md5 if len(wanted[1]) == 32 else record.sha256
    if known is not None and known.hex() != wanted[1]:
        raise ToolError(f"{record.url}: its hash is {known.hex()}, and not {wanted[1]}", 1)
