"""`mooring check`: resolve everything, import the application in a child, serve nothing, say the reasons."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from mooring import resources
from mooring.admin import instance
from mooring.commands.run import prestart
from mooring.commands.run.prepare import prepare
from mooring.commands.run.start import open_access, open_log
from mooring.errors import EXIT_OK, ApplicationError, ConfigurationError, MooringError
from mooring.logs.log import Log, LogFiles, last_words, show_traceback
from mooring.plan import redact, tls
from mooring.plan.fit import fit
from mooring.plan.plan import Explained, Plan, Report, as_json, given
from mooring.settings import engines
from mooring.settings.resolve import resolve
from mooring.settings.table import show
from mooring.system import accounts, listeners, process
from mooring.system.doors import Doors
from mooring.worker import messages, run
from mooring.worker.assignment import Assignment
from mooring.worker.context import Context


@dataclass(slots=True)
class Findings:
    """What `check` found; `error` is the error that `run` would end with."""

    application: dict[str, str] | None = None
    plan: Plan | None = None
    settings: dict[str, Explained] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: MooringError | None = None

    def decisions(self) -> dict[str, dict[str, Any]]:
        """The plan, or if it could not be made, the settings as they were given. Without secrets."""
        return redact.plan(self.plan.as_json() if self.plan else as_json(self.settings))

    def shown_warnings(self) -> list[str]:
        """The warnings without secrets."""
        target = self.settings["app"].value if "app" in self.settings else None
        return [redact.without_arguments(warning, target) for warning in self.warnings]

    def as_json(self) -> dict[str, Any]:
        """The JSON object of `check --json`; scripts rely on its form."""
        return {
            "application": self.application,
            "plan": self.decisions(),
            "resources": self.resources,
            "warnings": self.shown_warnings(),
            **({"error": str(self.error)} if self.error else {}),
        }


def check(cli: Mapping[str, str], environ: Mapping[str, str], folder: Path, *, as_json: bool) -> int:
    """Print the findings. Returns the exit code that `run` would end with, 0 where it would serve."""
    findings = find(cli, environ, folder)
    if as_json:
        click.echo(json.dumps(findings.as_json(), indent=2))
    else:
        _print(findings)
    if findings.error is not None:
        sys.stdout.flush()
        show_traceback(getattr(findings.error, "traceback", ""))
        last_words(str(findings.error))
        return findings.error.exit_code
    return EXIT_OK


def find(cli: Mapping[str, str], environ: Mapping[str, str], folder: Path) -> Findings:
    """Everything `run` would decide. The pre-start hook is not run: it may migrate a database."""
    findings = Findings()
    try:
        findings.resources = resources.read(environ=environ).as_json()
        resolved = resolve(cli, environ, folder)
        findings.warnings = list(resolved.warnings)
        findings.settings = given(resolved)
        findings.plan = prepare(resolved, environ)
        plan = findings.plan
        findings.warnings = [*plan.warnings, *plan.advice, *tls.check(plan.settings)]
        hook = prestart.find(resolved)
        if hook is not None:
            findings.warnings.append(
                f"the pre-start hook {hook.path} was not run; what it changes is not seen here"
            )
        _look(findings, findings.plan, environ)
    except MooringError as error:
        findings.error = error
    return findings


def _look(findings: Findings, plan: Plan, environ: Mapping[str, str]) -> None:
    """Try the user, log files, application and listeners: reading is not enough. Raises MooringError."""
    account = accounts.find(plan.settings.user)
    files = LogFiles()
    log = open_log(plan.settings, files)
    open_access(plan.settings, files)
    report = _probe(plan, environ, log, account)
    chosen = engines.choose(plan.engine, report.interface)
    facts = {
        "target": redact.call(report.target),
        "interface": report.interface,
        "framework": report.framework,
    }
    findings.application = facts
    extra = findings.warnings[len(plan.warnings) :]
    findings.plan = fit(plan, report._replace(engine=chosen), process.proportional_set_size() or 0)
    findings.warnings = [*findings.plan.warnings, *extra]
    note = _bind(plan, environ)
    if note:
        findings.warnings.append(note)


def _bind(plan: Plan, environ: Mapping[str, str]) -> str:
    """Open the TCP listeners and the runtime folder for a moment.

    Returns a note if they were not tried because the instance is running, else "". Raises BindError and
    ConfigurationError.
    """
    settings, first = plan.settings, plan.binds[0]
    if settings.name is None and first.kind not in ("tcp", "unix"):
        return ""  # an inherited socket: only `run` gets it
    name = instance.instance_name(settings, first)
    if any(found.alive and found.name == name for found in instance.list_instances(settings, environ)):
        return f"the instance {name} is running: its listeners and its runtime folder were not tried"
    binds = [bind for bind in plan.binds if bind.kind == "tcp"]
    with ExitStack() as last:
        source = plan.bind_source
        opened = listeners.open_listeners(binds, backlog=1, unix_mode=0o600, environ={}, source=source)
        last.callback(listeners.close_listeners, opened)
        address = opened[0].address if opened else first
        last.callback(instance.open_instance(settings, address, environ).close)
    return ""


def _probe(plan: Plan, environ: Mapping[str, str], log: Log, account: accounts.Account | None) -> Report:
    """Import the application in a child, as a worker would. Returns its report; raises MooringError."""
    read, write = os.pipe()
    assignment = Assignment(
        plan=plan,
        doors=Doors(()),
        report=write,
        seat=None,
        context=Context(environ, plan.settings.app_root or ".", account, log, None, LogFiles()),
    )
    pid = process.spawn(lambda: run.probe(assignment), [write, log.fd])
    os.close(write)
    message = _hear(read, pid, plan.settings.boot_timeout)
    report = messages.report(message)
    if report is not None:
        return report
    failure = messages.failure(message)
    if failure is None:
        raise ApplicationError("the application ended its process while it was imported")
    if failure.code == ConfigurationError.exit_code:
        raise ConfigurationError(failure.message)
    raise ApplicationError(failure.message)


def _hear(pipe: int, pid: int, timeout: float) -> dict[str, Any]:
    """The child's one message; empty if it ended without one, `failed` if it took too long.

    The child is killed in any case. `timeout` is in seconds.
    """
    deadline = time.monotonic() + timeout
    received = b""
    while b"\n" not in received:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            late = f"the application was not imported within {timeout:g} s (MOORING_BOOT_TIMEOUT)"
            received = messages.encode("failed", {"message": late, "code": ApplicationError.exit_code})
            break
        data = os.read(pipe, 65536)
        if not data:
            break
        received += data
    process.kill_group(pid)
    os.waitpid(pid, 0)
    os.close(pipe)
    lines = received.splitlines()
    return messages.decode(lines[0]) or {} if lines else {}


def _print(findings: Findings) -> None:
    if findings.application is not None:
        app = findings.application
        framework = f", {app['framework']}" if app["framework"] else ""
        click.echo(f"application  {app['target']} ({app['interface']}{framework})\n")
    rows = [("setting", "value", "origin", "reason")]
    for name, item in findings.decisions().items():
        value = ",".join(item["value"]) if isinstance(item["value"], list) else show(item["value"])
        rows.append((name, value or "not set", item["origin"], item["reason"]))  # not "-": that is stdout
    _table(rows)
    click.echo()
    _table(
        [("resource", "value", "source", "")]
        + [
            (name, show(item["value"]) or "-", item["source"], "")
            for name, item in findings.resources.items()
        ]
    )
    for warning in findings.shown_warnings():
        click.echo(f"warning: {warning}", err=True)


def _table(rows: list[tuple[str, str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [row[column].ljust(widths[column]) for column in range(3)]
        click.echo("  ".join([*cells, row[3]]).rstrip())
