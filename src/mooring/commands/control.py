"""`mooring status`, `reload` and `health`: talk to a running instance over its control socket."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mooring.admin.instance import Instance, connect, list_instances
from mooring.commands.started import was_started
from mooring.errors import ConfigurationError
from mooring.logs.escape import escape
from mooring.settings.resolve import resolve_some

_RESOLVING = 60.0  # seconds; more than a roll may take to resolve its settings (supervisor/reconfigure.py)


def find(cli: Mapping[str, str], environ: Mapping[str, str]) -> Instance:
    """The instance to talk to: the named one, or the only running one. Raises ConfigurationError."""
    try:
        folder = Path.cwd()
    except FileNotFoundError:
        folder = Path("/")  # the working folder was removed; the instance may still run
    settings = resolve_some(("name", "runtime_dir"), cli, environ, folder)
    alive = [found for found in list_instances(settings, environ) if found.alive]
    if settings.name is not None:
        alive = [found for found in alive if found.name == settings.name]
        if not alive:
            raise ConfigurationError(f"no instance named {settings.name!r} is running")
    if not alive:
        raise ConfigurationError("no instance is running here; start one with: mooring run")
    if len(alive) > 1:
        names = ", ".join(found.name for found in alive)
        raise ConfigurationError(f"several instances are running: {names}; choose one with --name")
    return alive[0]


def ask(instance: Instance, method: str, path: str, timeout: float = 5.0) -> tuple[int, bytes]:
    """Send a request. Returns the response's status and body; raises ConfigurationError if there is none."""
    try:
        with connect(instance) as connection:
            connection.settimeout(timeout)
            connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: mooring\r\n\r\n".encode())
            received = b""
            while data := connection.recv(65536):
                received += data
    except OSError as error:
        raise ConfigurationError(f"instance {instance.name} does not answer: {error}") from None
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConfigurationError(f"instance {instance.name} gave no answer")
    return int(words[1]), body


def show_status(cli: Mapping[str, str], environ: Mapping[str, str], *, as_json: bool) -> int:
    """Print /status, as JSON or for people."""
    instance = find(cli, environ)
    _, body = ask(instance, "GET", "/status")
    facts: dict[str, Any] = json.loads(body)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return 0
    click.echo(f"{instance.name}: {facts['state']}, generation {facts['generation']}, pid {facts['pid']}")
    served = f"{escape(facts['application'])} ({facts['interface']}) on {facts['engine']}"
    click.echo(f"{served} at {', '.join(facts['listeners'])}")
    workers = facts["plan"]["workers"]
    click.echo(f"workers: {workers['value']} ({workers['origin']}) {workers['reason']}")
    if facts.get("full"):  # None, or an older instance
        click.echo(f"full: {facts['full']}")
    if facts["admin"]:
        click.echo(f"admin endpoint: {', '.join(facts['admin'])}")
    for line in _table(facts["workers"]):
        click.echo(line)
    return 0


def _table(workers: list[dict[str, Any]]) -> list[str]:
    """A line of titles, and a line for each worker."""
    titles = ("slot", "pid", "state", "age", "requests", "in flight", "p99", "memory", "failed")
    rows = [titles, *map(_cells, workers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row["slot"]),
        str(row["pid"] or "-"),
        row["state"],
        f"{row['age_s']:.0f} s",
        str(row["requests"]),
        str(row["in_flight"]),
        "-" if row["p99_ms"] is None else f"{row['p99_ms']:.3g} ms",
        f"{row['memory_bytes'] // 1048576} MiB" if row["memory_bytes"] else "-",
        str(row["restarts"]),
    )


def reload(cli: Mapping[str, str], environ: Mapping[str, str]) -> int:
    """Ask for a roll and wait until it has ended. Returns 0 where the new generation serves, else 1."""
    instance = find(cli, environ)
    before = json.loads(ask(instance, "GET", "/status")[1])
    ask(instance, "POST", "/roll")
    times = (before["plan"][name]["value"] for name in ("boot_timeout", "graceful_timeout"))
    deadline = time.monotonic() + _RESOLVING + sum(times)
    while time.monotonic() < deadline:
        now = json.loads(ask(instance, "GET", "/status")[1])
        if now["last_roll"] != before["last_roll"]:
            return _outcome(now)
        time.sleep(0.05)  # the control socket sends no notifications, so ask again
    click.echo("mooring: the roll has not ended in time; see mooring status", err=True)
    return 1


def _outcome(facts: dict[str, Any]) -> int:
    roll = facts["last_roll"]
    if roll["outcome"] == "rolled":
        click.echo(f"generation {facts['generation']} serves")
        return 0
    kept = f"; generation {facts['generation']} keeps serving" if roll["rolled_back"] else ""
    outcome = "was refused" if roll["outcome"] == "roll refused" else "failed"
    click.echo(f"mooring: the roll {outcome}: {escape(roll['why'])}{kept}", err=True)
    return 1


def health(cli: Mapping[str, str], environ: Mapping[str, str], *, if_started: bool = False) -> int:
    """Return 0 if the instance is ready, else 1, with the reason on stderr.

    `if_started`: 0 too where no mooring was started here: what else runs is not mooring's to judge.
    """
    try:
        instance = find(cli, environ)
        code, body = ask(instance, "GET", "/readyz")
    except ConfigurationError as error:
        if if_started and not was_started():
            click.echo("mooring was not started here, and says nothing about what runs")
            return 0
        click.echo(f"mooring: {error}", err=True)
        return 1
    if code != 200:
        click.echo(f"mooring: not ready: {body.decode(errors='replace').strip()}", err=True)
        return 1
    return 0
