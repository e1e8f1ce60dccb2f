"""Find a server's own configuration that the user brought: for gunicorn a file, arguments or a worker class,
for hypercorn a file.

A process of its own evaluates it (probe.py): no user code runs here, and no server is imported. That process
is started only if there is something to evaluate. The engine gets a reference to the configuration, for the
options that are no settings of mooring.
"""

from __future__ import annotations

import binascii
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mooring.errors import ConfigurationError
from mooring.logs.log import show_traceback
from mooring.plan.server_config.shipped import UNCHANGED
from mooring.plan.server_config.values import Overrides
from mooring.plan.server_config.worker_classes import brings_gunicorn
from mooring.settings import engines
from mooring.settings.resolve import PROFILE, Resolved
from mooring.system.memfd import memory
from mooring.system.signals import STOPS, SignalQueue, Stopped

if TYPE_CHECKING:
    import subprocess

TIMEOUT = 30.0  # seconds for a configuration file to be evaluated
_TICK_MS = 10  # between two looks at the probe, if no SIGCHLD reports its end

_PROBE = str(Path(__file__).with_name("probe.py"))


class ServerConf(NamedTuple):
    """The configuration that the user brought.

    `kind` is gunicorn or hypercorn, or "" if there are only warnings. `path` is the file or reference
    (gunicorn: PATH, `python:MODULE`; hypercorn: as its own -c takes it), None if only arguments or a worker
    class were given. `overrides` are mooring's settings by name, only those that the configuration really
    sets; `sources` the origin of each (`file:PATH`, `env:GUNICORN_CMD_ARGS`), and under `engine` the origin
    of the choice of engine.
    """

    kind: str
    path: str | None
    overrides: Mapping[str, Any]
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def origin(self, name: str) -> str:
        """The origin of a setting's value, as users see it."""
        return self.sources.get(name, self.sources.get("engine", ""))


class _Brought(NamedTuple):
    """A file, arguments or a class that asks for the engine `kind`; `shown` is its name in messages."""

    kind: str
    reference: str | None
    origin: str
    shown: str


@dataclass(slots=True)
class _Search:
    resolved: Resolved
    environ: Mapping[str, str]
    signals: SignalQueue | None
    warnings: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return Path(self.resolved.settings.app_root or ".")

    @property
    def insisted(self) -> str:
        """The engine that the user named, or auto; a profile's does not count."""
        named = self.resolved.origins["engine"].rank > PROFILE
        return self.resolved.settings.engine if named else "auto"

    def shown(self, name: str) -> str:
        return self.resolved.origins[name].text.removeprefix("env:")


def find(
    resolved: Resolved, environ: Mapping[str, str], signals: SignalQueue | None = None
) -> ServerConf | None:
    """The configuration that the user brought, or None. It is evaluated with the environment `environ`.

    Raises ConfigurationError for a file that is missing or fails, bad arguments, or an unknown worker class;
    Stopped if `signals` receives a TERM, INT or QUIT meanwhile.
    """
    search = _Search(resolved, environ, signals)
    brought = _chosen(search, list(_brought(search)))
    if not brought:
        return ServerConf("", None, {}, {}, tuple(search.warnings)) if search.warnings else None
    kind = brought[0].kind
    engines.require(kind)
    reference = next((each.reference for each in brought if each.reference), None)
    arguments = (resolved.settings.gunicorn_cmd_args or "") if kind == "gunicorn" else ""
    default = search.root / "gunicorn.conf.py"
    if kind == "gunicorn" and reference is None and not arguments and default.is_file():
        reference = str(default)
    overrides = Overrides()
    if reference is not None or arguments:
        report = _evaluate(search, kind, reference or "", arguments)
        reference = report.get("reference", reference) or None
        overrides.add(kind, report["file"], f"file:{_bare(reference)}")
        overrides.add(kind, report.get("cmd", {}), resolved.origins["gunicorn_cmd_args"].text)
    origin = {"engine": brought[0].origin} if brought[0].origin else {"engine": f"file:{_bare(reference)}"}
    warnings = (*search.warnings, *overrides.warnings)
    return ServerConf(kind, reference, overrides.values, {**overrides.sources, **origin}, warnings)


def _bare(reference: str | None) -> str:
    return (reference or "").removeprefix("file:")


def _brought(search: _Search) -> Iterator[_Brought]:
    settings = search.resolved.settings
    for kind, given in (("gunicorn", settings.gunicorn_conf), ("hypercorn", settings.hypercorn_conf)):
        if given is not None:
            yield from _named(search, kind, given)
        elif kind == search.resolved.profile.conf_kind:
            yield from _searched(search, kind)
    if settings.gunicorn_cmd_args:
        name = "gunicorn_cmd_args"
        yield _Brought("gunicorn", None, search.resolved.origins[name].text, search.shown(name))
    if brings_gunicorn(search.resolved, search.insisted, search.warnings):
        origin = search.resolved.origins["worker_class"].text
        yield _Brought("gunicorn", None, origin, f"{search.shown('worker_class')}={settings.worker_class}")
    if search.insisted == "gunicorn" and (search.root / "gunicorn.conf.py").is_file():
        yield _Brought("gunicorn", None, "", "gunicorn.conf.py")


def _named(search: _Search, kind: str, reference: str) -> Iterator[_Brought]:
    """The file that a variable names. Raises ConfigurationError if it does not exist."""
    name = f"{kind}_conf"
    if not reference.startswith("python:"):
        path = search.root / _bare(reference)
        if not path.is_file():
            raise ConfigurationError(f"{search.shown(name)}: the {kind} configuration {path} does not exist")
        if _is_default(search, path):
            return
        reference = _notation(kind, path, python=reference.startswith("file:"))
    yield _Brought(kind, reference, search.resolved.origins[name].text, f"{search.shown(name)} ({reference})")


def _searched(search: _Search, kind: str) -> Iterator[_Brought]:
    """The first file of the profile's search order, in which the image's own file is the last."""
    profile = search.resolved.profile
    paths = [search.root / name for name in profile.conf_names]
    paths += [Path(profile.shipped_conf)] if profile.shipped_conf else []
    for path in paths:
        if path.is_file():
            if not _is_default(search, path):
                yield _Brought(kind, _notation(kind, path), f"file:{path}", str(path))
            return


def _is_default(search: _Search, path: Path) -> bool:
    """Whether a file is the image's own and unchanged: such a file asks for no engine."""
    if str(path) != search.resolved.profile.shipped_conf:
        return False
    content = path.read_bytes()
    return (len(content), binascii.crc32(content)) in UNCHANGED


def _notation(kind: str, path: Path, *, python: bool = False) -> str:
    is_python = python or path.suffix == ".py"
    return f"file:{path}" if kind == "hypercorn" and is_python else str(path)


def _chosen(search: _Search, brought: list[_Brought]) -> list[_Brought]:
    """What was brought for the one engine. Raises ConfigurationError for two engines and none named."""
    if search.insisted != "auto":
        for each in brought:
            if each.kind != search.insisted:
                search.warnings.append(f"{each.shown} is not used: the engine is {search.insisted}")
        return [each for each in brought if each.kind == search.insisted]
    other = next((each for each in brought if each.kind != brought[0].kind), None)
    if other is not None:
        first = brought[0]
        both = f"{first.shown} asks for {first.kind}, {other.shown} for {other.kind}"
        raise ConfigurationError(f"{both}: set MOORING_ENGINE")
    return brought


def _evaluate(search: _Search, kind: str, reference: str, arguments: str) -> dict[str, Any]:
    """The probe's report. Its output is shown only if it fails, because configuration files may print."""
    import subprocess  # imported here: 5 ms, and most starts have no such file

    # Files, not pipes: a process that a configuration file starts could hold a pipe open.
    answer, output = memory("mooring-probe"), memory("mooring-probe-output")
    own = [entry for entry in sys.path if entry not in ("", os.path.dirname(os.path.abspath(sys.argv[0])))]
    # The probe is to import the same servers as a worker: a virtual environment may hold others.
    path = os.pathsep.join(own)
    command = [sys.executable, "-P", _PROBE, str(answer), kind, reference, arguments, path]
    what = f"{kind} configuration {_bare(reference) or search.shown('gunicorn_cmd_args')}"
    try:
        probe = subprocess.Popen(  # noqa: S603 (the user's own configuration, no shell)
            command,
            cwd=search.root,
            env=dict(search.environ),
            pass_fds=[answer],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        _await(probe, what, search.signals)
        text = os.pread(answer, os.fstat(answer).st_size, 0)
        printed = os.pread(output, os.fstat(output).st_size, 0).decode(errors="replace").rstrip()
    finally:
        os.close(answer)
        os.close(output)
    if probe.returncode != 0 or not text:
        show_traceback(printed)
        last = printed.rpartition("\n")[2] or f"exit code {probe.returncode}"
        raise ConfigurationError(f"{what} failed: {last}")
    report: dict[str, Any] = json.loads(text)
    if "error" in report:
        raise ConfigurationError(f"{what}: {report['error']}")
    return report


def _await(probe: subprocess.Popen[bytes], what: str, signals: SignalQueue | None) -> None:
    """Wait for the probe's end. It is killed with its process group if it takes too long or at a stop signal.

    Raises ConfigurationError or Stopped.
    """
    deadline = time.monotonic() + TIMEOUT
    poller = select.poll()
    if signals is not None:
        poller.register(signals.fileno(), select.POLLIN)
    try:
        while probe.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ConfigurationError(f"{what}: took longer than {TIMEOUT:g} s")
            poller.poll(min(left * 1000, _TICK_MS) if signals is None else left * 1000 + 1)
            for number in signals.read() if signals is not None else ():
                if number in STOPS:
                    raise Stopped(f"stopped by {signal.Signals(number).name} while reading the {what}")
    except BaseException:
        os.killpg(probe.pid, signal.SIGKILL)
        probe.wait()
        raise
