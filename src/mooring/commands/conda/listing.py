# ruff: noqa: T201
"""The commands that only look: list, info, env list, env export."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mooring
from mooring.commands.conda import options, places
from mooring.commands.conda.condarc import Configuration
from mooring.commands.conda.places import Places

# The conda whose command line this follows, for scripts that compare versions.
FOLLOWS = "25.1.0"

_HEAD = "# conda create --name NAME --file THIS-FILE\n# platform: {}"


def version(called: str) -> str:
    """What --version prints."""
    return f"{called} {FOLLOWS} (mooring's, of mooring {mooring.__version__}; not {called} itself)"


def _subdir() -> str:
    return {"x86_64": "linux-64"}.get(platform.machine(), f"linux-{platform.machine()}")


def _packages(at: Places, prefix: Path, pip: bool) -> list[dict[str, Any]]:
    """The rows of `conda list`, in the form of its JSON."""
    rows = []
    for each in places.records(prefix):
        channel = str(each.get("channel") or "")
        rows.append(
            {
                "base_url": channel.rstrip("/"),
                "build_number": each.get("build_number", 0),
                "build_string": each["build"],
                "channel": "image"
                if each["build"] == places.STAND_IN
                else channel.rstrip("/").split("/")[-1],
                "dist_name": f"{each['name']}-{each['version']}-{each['build']}",
                "name": each["name"],
                "platform": each.get("subdir", ""),
                "version": each["version"],
                "url": each.get("url", ""),
                "md5": each.get("md5") or "",
            }
        )
    known = {str(each["name"]).lower().replace("_", "-") for each in rows}
    for each in _from_pypi(at, prefix) if pip else ():
        if each["name"].lower().replace("_", "-") not in known:
            rows.append(each)
    return sorted(rows, key=lambda each: str(each["name"]).lower())


def _from_pypi(at: Places, prefix: Path) -> list[dict[str, Any]]:
    folders = [str(each) for each in prefix.glob("lib/python3*/site-packages")]
    if at.is_root(prefix):
        folders.append(sysconfig.get_path("purelib"))  # the image's own packages are in base, too
    rows = []
    for each in importlib.metadata.distributions(path=folders):
        if (each.read_text("INSTALLER") or "").strip() != "conda":
            row = {
                "base_url": "https://pypi.org/",
                "build_number": 0,
                "build_string": "pypi_0",
                "channel": "pypi",
            }
            named = f"{each.name}-{each.version}-pypi_0"
            rows.append(
                {**row, "dist_name": named, "name": each.name, "platform": "pypi", "version": each.version}
            )
    return rows


def packages(at: Places, _: Configuration, words: Sequence[str]) -> int:
    """`conda list`."""
    parser = options.parser("list")
    parser.add_argument("-e", "--export", action="store_true")
    parser.add_argument("--explicit", action="store_true")
    parser.add_argument("--md5", action="store_true")
    parser.add_argument("--no-pip", action="store_true")
    parser.add_argument("-f", "--full-name", action="store_true")
    parser.add_argument("-c", "--canonical", action="store_true")
    parser.add_argument("--show-channel-urls", action="store_true")
    parser.add_argument("pattern", nargs="?", default="")
    given = parser.parse_args(words)
    prefix = at.existing(given.name, given.prefix)
    rows = _packages(at, prefix, not (given.no_pip or given.export or given.explicit))
    pattern = f"^{given.pattern}$" if given.full_name else given.pattern
    rows = [each for each in rows if re.search(pattern, str(each["name"]))]
    if given.json:
        shown = [{key: each[key] for key in each if key not in ("url", "md5")} for each in rows]
        print(json.dumps(shown, indent=2))
    elif given.explicit:
        print(_HEAD.format(_subdir()) + "\n@EXPLICIT")
        for each in rows:
            if each["channel"] != "image":
                print(each["url"] + (f"#{each['md5']}" if given.md5 and each["md5"] else ""))
    elif given.export:
        print(_HEAD.format(_subdir()))
        for each in rows:
            print("=".join([each["name"], each["version"], *_build(each)]))
    elif given.canonical:
        print("\n".join(str(each["dist_name"]) for each in rows))
    else:
        print(
            f"# packages in environment at {prefix}:\n#\n# {'Name':<23} {'Version':<23} {'Build':<23} Channel"
        )
        for each in rows:
            print(f"{each['name']:<25} {each['version']:<23} {each['build_string']:<23} {each['channel']}")
    return 0


def _build(row: dict[str, Any]) -> list[str]:
    """The build for an exported spec; no channel has that of the image's own Python."""
    return [] if row["channel"] == "image" else [str(row["build_string"])]


def environments(at: Places, _: Configuration, words: Sequence[str]) -> int:
    """`conda env list`."""
    given = options.parser("env list").parse_args(words)
    found = list(at.environments())
    if given.json:
        print(json.dumps({"envs": [str(each) for each in found]}, indent=2))
        return 0
    active = at.environ.get("CONDA_PREFIX", "")
    print("# conda environments:\n#")
    for each in found:
        print(f"{at.name(each):<20} {'*' if str(each) == active else ' '}  {each}")
    return 0


def export(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda env export`."""
    parser = options.parser("env export")
    parser.add_argument("-f", "--file", default="")
    parser.add_argument("--no-builds", action="store_true")
    parser.add_argument("--from-history", action="store_true")
    given = parser.parse_args(words)
    prefix = at.existing(given.name, given.prefix)
    rows = _packages(at, prefix, not given.from_history)
    asked = [spec for each in places.records(prefix) for spec in each.get("requested_specs") or ()]
    conda = [each for each in rows if each["channel"] != "pypi"]
    lines = [f"name: {at.name(prefix)}", "channels:"]
    sources = [each["base_url"] for each in conda if each["channel"] != "image"] or configuration.channels
    lines += [f"  - {each}" for each in dict.fromkeys(sources)]
    lines += ["dependencies:"]
    if given.from_history:
        lines += [f"  - {each}" for each in asked]
    else:
        lines += [
            "  - " + "=".join([e["name"], e["version"], *([] if given.no_builds else _build(e))])
            for e in conda
        ]
        pip = [each for each in rows if each["channel"] == "pypi"]
        lines += ["  - pip:", *(f"      - {each['name']}=={each['version']}" for each in pip)] if pip else []
    lines += [f"prefix: {prefix}"]
    text = "\n".join(lines) + "\n"
    if given.file:
        Path(given.file).write_text(text)
    else:
        sys.stdout.write(text)
    return 0


def info(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda info`."""
    parser = options.parser("info")
    parser.add_argument("--base", action="store_true")
    parser.add_argument("-e", "--envs", action="store_true")
    parser.add_argument("-a", "--all", action="store_true")
    parser.add_argument("-s", "--system", action="store_true")
    given = parser.parse_args(words)
    if given.base:
        print(json.dumps({"root_prefix": str(at.root)}) if given.json else at.root)
        return 0
    if given.envs:
        return environments(at, configuration, ["--json"] if given.json else [])
    active = at.environ.get("CONDA_PREFIX")
    facts: dict[str, Any] = {
        "active environment": at.name(Path(active)) if active else "None",
        "active env location": active or "None",
        "conda version": FOLLOWS + f" (mooring's, of mooring {mooring.__version__})",
        "python version": platform.python_version(),
        "base environment": str(at.root),
        "channel URLs": configuration.sources(configuration.channels),
        "package cache": [str(at.downloads)],
        "envs directories": [str(each) for each in at.homes],
        "platform": _subdir(),
        "populated config files": [str(each) for each in configuration.files()],
    }
    if given.json:
        more = {
            "conda_version": FOLLOWS,
            "root_prefix": str(at.root),
            "conda_prefix": str(at.root),
            "active_prefix": active,
            "active_prefix_name": at.name(Path(active)) if active else None,
            "envs": [str(each) for each in at.environments()],
            "envs_dirs": [str(each) for each in at.homes],
            "pkgs_dirs": [str(at.downloads)],
            "channels": facts["channel URLs"],
            "platform": _subdir(),
            "python_version": platform.python_version(),
            "config_files": facts["populated config files"],
        }
        print(json.dumps(more, indent=2))
        return 0
    for key, value in facts.items():
        print(f"{key:>26} : " + ("\n" + " " * 29).join(value if isinstance(value, list) else [str(value)]))
    return 0
