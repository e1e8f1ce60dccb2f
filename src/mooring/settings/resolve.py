"""Settings from their origins, strongest first: command line, MOORING_X, bare X, file, profile, default.

All bad values are reported at once. Nothing downstream reads the environment again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mooring.errors import ConfigurationError
from mooring.settings import parsers
from mooring.settings.profiles import PROCESS_MANAGERS, PROFILES, Profile
from mooring.settings.table import ROWS, Setting, Settings, show

CLI, ENVIRONMENT, FILE, PROFILE, DEFAULT = 4, 3, 2, 1, 0


class Origin(NamedTuple):
    """Where a value came from: `rank` orders the origins, `text` is what users see (`env:PORT`)."""

    rank: int
    text: str


def origin_name(setting: str, origin: str) -> str:
    """An origin's text as users write it: `PORT`, `--port`, `/app/mooring.toml: port`, `profile image: port`.

    Empty for what nobody has given: a default, or what was tuned.
    """
    kind, _, rest = origin.partition(":")
    if kind == "cli":
        return "APP" if setting == "app" else ROWS[setting].option  # the application is mostly an argument
    if kind == "profile":
        return f"profile {rest}: {setting}"
    return {"env": rest, "file": f"{rest}: {setting}"}.get(kind, "")


class Resolved(NamedTuple):
    """The settings, the origin of each, their profile, and warnings (variables without effect)."""

    settings: Settings
    origins: Mapping[str, Origin]
    profile: Profile
    warnings: tuple[str, ...] = ()

    def rank(self, *names: str) -> int:
        """The strongest rank among some settings' origins."""
        return max(self.origins[name].rank for name in names)

    def origin_name(self, setting: str) -> str:
        """A setting's origin as users write it: see the function of that name."""
        return origin_name(setting, self.origins[setting].text)


_LARGEST = 65_536  # bytes of a file that holds one setting


class _Reader:
    """Collects values and errors from all origins."""

    def __init__(self, cli: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self.cli = cli
        self.environ = environ
        self.file: Mapping[str, str] = {}
        self.file_name = ""
        self.profile = PROFILES["none"]
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def parse(self, row: Setting, text: str, where: str, *, shown: bool = True) -> Any:
        stripped = text.strip()
        if not stripped and row.empty_disables:
            return None
        if where.removeprefix("env:") in self.profile.any_text_is_true:
            return True
        try:
            return row.parse(stripped)
        except ValueError as error:
            value = repr(text) if shown and not row.secret else "(not shown)"
            hint = "; the quotes are a part of the value" if parsers.quoted(stripped) else ""
            self.errors.append(f"{where.removeprefix('env:')}={value}: expected {error}{hint}")
            return row.default

    def variables(self, row: Setting) -> tuple[str, ...]:
        first = self.profile.first_variable.get(row.name)
        order = [row.canonical, *([first] if first else []), *row.bare]
        return tuple(name for name in dict.fromkeys(order) if name not in self.profile.ignored)

    def foreign(self, variable: str, text: str) -> bool:
        """Whether someone else than the user has set a variable that is a setting's by its name."""
        if _service_link(variable, text):
            return True
        if not _conda_host(variable, text.strip(), self.environ):
            return False
        self.warnings.append(
            f"HOST={text.strip()} is passed over: conda's compilers have set it, and it is no address; "
            "set MOORING_HOST or BIND to say where to listen"
        )
        return True

    def held(self, row: Setting, path: str) -> str | None:
        """The text in the file of MOORING_<NAME>_FILE; an error, and None, where it cannot be used."""
        wrong = ""
        try:
            data = _content(path)
            text = data.decode()
        except OSError as error:
            wrong = str(error.strerror)
        except ValueError:
            wrong = "the file is not UTF-8 text"
        else:
            if len(data) > _LARGEST:
                wrong = f"the file has more than {_LARGEST} bytes"
            elif not (text.strip() or row.empty_disables):
                wrong = "the file is empty"
            elif row.name == "config" and "\n" in text.strip():
                wrong = f"it should hold a path; {row.canonical} names the configuration file itself"
        if self.environ.get(row.canonical, "").strip():
            wrong = f"{row.canonical} is set too; unset one of them"
        if wrong:
            self.errors.append(f"{row.from_file}={path}: {wrong}")
            return None
        return text

    def value(self, row: Setting) -> tuple[Any, Origin]:
        """The row's value from its strongest origin; an empty value of most settings means unset."""
        given = self.cli.get(row.name)
        if given is not None and (given.strip() or row.empty_disables):
            where = "APP" if row.name == "app" else row.option  # the application is mostly an argument
            if row.secret:
                self.errors.append(
                    f"{where}: every user of the machine can read a command line; set {row.canonical}, or "
                    f"{row.from_file} to the path of a file that holds it"
                )
            return self.parse(row, given, where), Origin(CLI, "cli")
        path = self.environ.get(row.from_file, "").strip()
        if path:
            held = self.held(row, path)
            value = row.default if held is None else self.parse(row, held, row.from_file, shown=False)
            return value, Origin(ENVIRONMENT, f"env:{row.from_file}")
        for variable in self.variables(row):
            text = self.environ.get(variable)
            if text is None or not (text.strip() or row.empty_disables):
                continue
            if not self.foreign(variable, text):
                return self.parse(row, text, f"env:{variable}"), Origin(ENVIRONMENT, f"env:{variable}")
        if self.file.get(row.name, "").strip() or (row.name in self.file and row.empty_disables):
            where = f"{self.file_name}: {row.name}"
            return self.parse(row, self.file[row.name], where), Origin(FILE, f"file:{self.file_name}")
        if row.name in self.profile.defaults:
            return self.profile.defaults[row.name], Origin(PROFILE, f"profile:{self.profile.name}")
        return row.default, Origin(DEFAULT, "default")


def _content(path: str) -> bytes:
    """At most `_LARGEST` bytes of a file, and one more. Raises OSError, for a pipe too: it may never end."""
    with open(path, "rb", opener=lambda *given: os.open(given[0], given[1] | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(_LARGEST + 1)


# Prefixes of what Kubernetes sets in every container of a namespace that has a Service called mooring.
_SERVICE_LINKS = ("MOORING_SERVICE_", "MOORING_PORT_")


def _service_link(variable: str, text: str) -> bool:
    """Whether Kubernetes, not the user, has set a variable: tcp://IP:PORT, for a Service called mooring."""
    return variable == "MOORING_PORT" and text.startswith(("tcp://", "udp://"))


_TRIPLET = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)?-(linux-gnu\w*|linux-musl\w*|apple-darwin[\d.]*)")


def _conda_host(variable: str, text: str, environ: Mapping[str, str]) -> bool:
    """Whether HOST is what conda sets when it activates its compilers: the kind of machine they build for."""
    if variable != "HOST" or not text:
        return False
    if text == environ.get("CONDA_TOOLCHAIN_HOST"):
        return True
    by_conda = "-conda" in text or any(name.startswith("CONDA_") for name in environ)
    return by_conda and _TRIPLET.fullmatch(text) is not None


def resolve(cli: Mapping[str, str], environ: Mapping[str, str], folder: Path) -> Resolved:
    """Resolve every setting.

    `cli` maps setting names to the text given on the command line; `folder` is the working folder, to which a
    relative application root is relative. Raises ConfigurationError that names every bad value at once.
    """
    reader = _Reader(cli, environ)
    _choose_profile(reader)
    _read_file(reader, folder)
    alone = _one_process(reader)
    if reader.profile.reloading is not None and reader.value(ROWS["reload"])[0]:
        reader.profile = reader.profile.reloading
    elif alone is not None:
        reader.profile = alone
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for name, row in ROWS.items():
        values[name], origins[name] = reader.value(row)
    _refuse(reader)
    root = folder / (values["app_root"] or ".")
    values["app_root"] = str(root.resolve())
    warnings = (*dict.fromkeys(reader.warnings), *_warnings(environ, reader.profile))
    return Resolved(Settings(**values), origins, reader.profile, warnings)


def resolve_some(
    names: Sequence[str], cli: Mapping[str, str], environ: Mapping[str, str], folder: Path
) -> Settings:
    """Resolve only the settings `names`; the others have their defaults. Errors in the others are ignored.

    So a running instance is found even if its configuration file is bad now. Raises ConfigurationError.
    """
    reader = _Reader(cli, environ)
    _choose_profile(reader)
    with contextlib.suppress(ConfigurationError):
        _read_file(reader, folder)
    reader.errors.clear()
    values = {name: reader.value(ROWS[name])[0] for name in names}
    _refuse(reader)
    return Settings(**values)


def _refuse(reader: _Reader) -> None:
    if reader.errors:
        raise ConfigurationError("bad settings: " + "; ".join(dict.fromkeys(reader.errors)))


def _choose_profile(reader: _Reader) -> None:
    name, origin = reader.value(ROWS["profile"])
    if name not in PROFILES:
        where = origin_name("profile", origin.text)
        reader.errors.append(f"{where}={name!r}: expected one of " + ", ".join(PROFILES))
        return
    reader.profile = PROFILES[name]


def _one_process(reader: _Reader) -> Profile | None:
    """The profile for one process, where PROCESS_MANAGER asks for it: the newer inboard images have it."""
    manager = reader.environ.get("PROCESS_MANAGER", "").strip()
    if reader.profile.one_process is None or not manager:
        return None
    if manager not in PROCESS_MANAGERS:
        reader.errors.append(f"PROCESS_MANAGER={manager!r}: expected one of {', '.join(PROCESS_MANAGERS)}")
    return reader.profile.one_process if PROCESS_MANAGERS.get(manager) else None


def _read_file(reader: _Reader, folder: Path) -> None:
    """Load the configuration file's table; unknown names in it are errors."""
    given, _ = reader.value(ROWS["config"])
    root, _ = reader.value(ROWS["app_root"])
    root = folder / (root or ".")
    candidates = [folder / given] if given else [root / "mooring.toml", root / "pyproject.toml"]
    for path in candidates:
        if not given and not path.is_file():
            continue
        table = _load_table(path, required=bool(given))
        if table is None:
            continue
        reader.file_name = str(path)
        reader.file = {
            (name := key.replace("-", "_")): _file_text(name, value) for key, value in table.items()
        }
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in ROWS or name == "config":
                reader.errors.append(f"{path}: {name}: no such setting{_near(name, ROWS)}")
            elif isinstance(value, bool) and ROWS[name].parse is parsers.text and reader.file[name]:
                reader.errors.append(f"{path}: {key}={show(value)}: expected a text in quotes")
        break
    if "profile" in reader.file and not reader.errors:  # else the error would be reported twice
        _choose_profile(reader)


def _load_table(path: Path, *, required: bool) -> Mapping[str, Any] | None:
    import tomllib  # only where there is a file: 10 ms

    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"configuration file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if path.name == "pyproject.toml" and not required and b"tool.mooring" not in path.read_bytes():
            return None  # it has no table for mooring, and other tools report the error
        raise ConfigurationError(f"configuration file {path}: not valid TOML: {error}") from None
    table: Any = document
    if path.name == "pyproject.toml":
        tool = document.get("tool")
        table = tool.get("mooring") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(f"configuration file {path}: [tool.mooring] must be a table")
    return table


def _file_text(name: str, value: Any) -> str:
    """A TOML value as the text that the row's parser takes."""
    if isinstance(value, list):
        between = "\n" if name == "companions" else ","  # a command may contain commas
        return between.join(_file_text(name, part) for part in value)
    if value is False and name in ROWS and ROWS[name].empty_disables:
        return ""  # access_log = false: off, and no file called false
    return show(value) if not isinstance(value, float) else repr(value)


def _warnings(environ: Mapping[str, str], profile: Profile) -> tuple[str, ...]:
    """Warnings for variables without effect.

    They are those that the profile ignores, those that differ from a setting's variable by one edit, and
    those that begin with MOORING_ but are no setting's.
    """
    known = {variable for row in ROWS.values() for variable in (*row.variables, row.from_file)}
    ignored = [name for name in profile.ignored if environ.get(name, "").strip()]
    found = [
        f"{name} has no effect with {profile.ignored_with} in the profile {profile.name}" for name in ignored
    ]
    for variable in sorted(environ):
        if variable in known or variable.startswith(_SERVICE_LINKS):
            continue
        near = _nearest(variable, known)
        if near and (len(variable) >= 6 or variable.startswith("MOORING_")):
            found.append(f"{variable} is not a setting and has no effect; did you mean {near}?")
        elif variable.startswith("MOORING_"):
            found.append(f"{variable} is not a setting and has no effect")
    return tuple(found)


def _near(name: str, known: Mapping[str, object]) -> str:
    near = _nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def _nearest(name: str, known: Any) -> str:
    return next((other for other in sorted(known) if one_edit_apart(name.upper(), other.upper())), "")


def one_edit_apart(left: str, right: str) -> bool:
    """Whether one insertion, deletion, replacement or swap of neighbours turns `left` into `right`."""
    if left == right or abs(len(left) - len(right)) > 1:
        return False
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    tail_left, tail_right = left[start:], right[start:]
    if len(left) == len(right):
        swapped = tail_left[1:2] + tail_left[:1] + tail_left[2:]
        return tail_left[1:] == tail_right[1:] or swapped == tail_right
    return tail_left[1:] == tail_right or tail_left == tail_right[1:]
