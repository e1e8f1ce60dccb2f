"""The tables of docs/security.md, from what benchmarks/hostile.py has measured. `make docs` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_attacks import ATTACKS, Attack
from hostile_servers import SERVERS

RESULTS = Path(__file__).parent / "results/hostile.json"
SLOW, GROWN, UNANSWERED = 1.0, 64.0, 15.0  # seconds and MiB from which a cell is bold; PATIENCE

# Each bare server beside mooring on it.
_ORDER = [
    *("nginx", "Puma", "uvicorn", "mooring, uvicorn", "hypercorn", "mooring, hypercorn"),
    *("granian, ASGI", "mooring, granian ASGI", "granian, WSGI", "mooring, granian WSGI"),
    *("gunicorn, gthread", "mooring, gunicorn gthread"),
    *("gunicorn, UvicornWorker", "mooring, gunicorn UvicornWorker"),
]
assert sorted(_ORDER) == sorted(SERVERS)


def sections(path: Path = RESULTS) -> dict[str, str]:
    """`{NAME: content}` for the page's generated sections."""
    data = json.loads(path.read_text())
    return {
        "machine": _machine(data),
        "what ends it": _table(data, lambda attack: True, _end),
        "what others notice": _table(data, lambda attack: not attack.alone, _others),
    }


def _machine(data: dict[str, Any]) -> str:
    machine, limits = data["machine"], data["limits"]
    names = ", ".join(f"{name} {version}" for name, version in sorted(data["versions"].items()))
    return (
        f"Measured on {data['date']} on a virtual machine ({machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory GiB']} GiB, Linux {machine['kernel']}, CPython {machine['python']}, "
        f"{machine['descriptors']} descriptors), busy with other work: {names}. "
        f"What waits was watched for {limits['wait']:g} s, a flood went on for {limits['flood']:g} s."
    )


def _table(
    data: dict[str, Any],
    shown: Callable[[Attack], bool],
    write: Callable[[Attack, dict[str, Any], dict[str, Any]], str],
) -> str:
    heads = [f"**mooring** {name[9:]}" if name.startswith("mooring, ") else name for name in _ORDER]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for title, attack in ATTACKS.items():
        if shown(attack):
            cells = [data["cells"].get(name, {}).get(title) for name in _ORDER]
            row = " | ".join("-" if cell is None else write(attack, cell, data["limits"]) for cell in cells)
            lines.append(f"| {attack.title} | {row} |")
    return "\n".join(lines)


def _end(attack: Attack, cell: dict[str, Any], limits: dict[str, Any]) -> str:
    words, seconds, sent = cell["ended"], cell["seconds"], cell["sent"]
    if attack.alone:
        return words if cell["closed"] else f"{words}, stays open"
    amount = f", {_size(sent)}" if attack.floods else ""
    if not words:
        return f"goes on{amount}" if attack.floods else f"not in {limits['wait']:g} s"
    if not attack.floods or seconds >= 2:
        amount = f", {seconds:.0f} s{amount}"
    stays = "" if cell["closed"] or " left" in words else ", stays open"
    return f"{'GOAWAY' if words.startswith('GOAWAY') else words}{amount}{stays}"


def _others(attack: Attack, cell: dict[str, Any], limits: dict[str, Any]) -> str:
    p99, grown = cell["p99"] or 0.0, cell["grown"]
    parts = [f"{p99:.1f} s" if p99 >= 1 else f"{1000 * p99:.0f} ms"]
    if p99 >= UNANSWERED:
        parts = [f"over {UNANSWERED:.0f} s"]
    if grown >= 1:
        parts.append(f"+{grown:.0f} MiB")
    if cell["failed"]:
        parts.append(f"{100 * cell['failed'] / cell['asked']:.0f} % failed")
    if cell["lost"]:
        parts.append("worker lost")
    bad = p99 >= SLOW or grown >= GROWN or cell["failed"] or cell["lost"]
    text = ", ".join(parts)
    return f"**{text}**" if bad else text


def _size(sent: int) -> str:
    return f"{sent / 1e6:.1f} MB" if sent >= 100_000 else f"{sent / 1e3:.0f} kB"
